"""Where rows come from, one module a kind; each turns what it reads into candidates, and says what it
dropped."""
