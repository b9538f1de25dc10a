"""The HTTP routes: what can be asked, under which path. Each module makes one router from the server's parts."""
