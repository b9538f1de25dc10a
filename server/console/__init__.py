"""The console: lists, reasons, state and items of a server in the browser.

It is an HTTP client of the server like any other (`server.client`), in a process of its own, and needs the extra `console`.
"""
