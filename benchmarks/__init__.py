"""What is measured over whole data sets, and what was recorded there."""

from drafting.builds import hide_unusable

# Before any module below imports transformers or vLLM.
hide_unusable()
