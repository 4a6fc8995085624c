"""The page in a real browser: live, lossless, safe, and usable by everybody."""
