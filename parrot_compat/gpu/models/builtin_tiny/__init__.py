"""What is shipped of `builtin:tiny`: its vocabulary and its chat template. Its weights are made on first use.

tokenizer.json was trained by recipes/train_builtin/tokenizer.py on the language reference and the docstrings of
CPython 3.11, Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved. That text is licensed under the
PSF License Agreement (https://docs.python.org/3/license.html). The file holds word pieces and no passage of the text.
"""
