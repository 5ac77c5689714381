"""What all plug-ins for Oracle's services share: the login, the clients of the SDK, and Oracle's words for metadata."""
