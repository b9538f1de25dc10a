"""What is measured over whole data sets, and what was recorded there."""
