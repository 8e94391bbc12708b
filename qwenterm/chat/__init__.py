"""Between messages and tokens: the model's template, its call syntax, the parser of its output."""
