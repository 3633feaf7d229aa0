"""What the tests share: what must not be left behind, tools and rights, running the product."""
