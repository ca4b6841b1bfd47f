"""The ``telegram`` channel: a bot of the Telegram Bot API, by long polling."""
