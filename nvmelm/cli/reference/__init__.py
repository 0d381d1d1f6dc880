"""What is made from the verbs by ``make``, and never run by one: nothing else may import it.

::

    tree         the verbs as data
    pages        pages of the documentation
    manpages     man pages
    completions  completion for shells
    schemas      the JSON Schema of every document
    examples     one command line for each verb
    ownership    who owns what, as the pages show it
    places       the environment, and the files nvmelm keeps
"""
