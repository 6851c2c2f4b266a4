"""Reports: self-contained HTML pages, plots and tables."""
