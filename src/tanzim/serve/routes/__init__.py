"""The API's paths, one file for each family of them."""
