"""Splits by patient or near-duplicate group, and the choice of training masks.

`groups` and `near_duplicates` find images that belong together, `stratified_split` divides the
groups, `holdout` and `cross_validation` make tables of it, `mask_budget` chooses masks, and
`split_table` reads and writes `splits.csv`.
"""
