"""Many networks at once, in threads and in processes: each must come to the bits that it comes to alone.

``python -m tests.concurrency --rounds 20`` runs all of it many times over and says what it saw;
``tests/concurrency/test_concurrency.py`` does once, on small networks.
"""
