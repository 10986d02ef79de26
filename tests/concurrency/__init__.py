"""Many networks at once, in threads and in processes: each must give the same bits as alone.

``python -m tests.concurrency --rounds 20`` runs everything many times and prints the results;
``tests/concurrency/test_concurrency.py`` runs it once on small networks.
"""
