"""What is shipped of `builtin:tiny`: a Hugging Face folder, its weights too; README.md is its card.

tokenizer.json and model.safetensors were made by recipes/train_builtin from the language reference, the docstrings and
the functions of CPython 3.11, Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved. That text is
licensed under the PSF License Agreement (https://docs.python.org/3/license.html).
"""
