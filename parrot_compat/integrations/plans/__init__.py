"""The client side of plans: calls that go to the server ahead of the app, whatever framework the app is written in."""
