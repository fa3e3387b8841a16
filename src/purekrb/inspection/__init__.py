"""What people paste, decoded into trees: messages, tokens, files, HTTP headers and captures."""
