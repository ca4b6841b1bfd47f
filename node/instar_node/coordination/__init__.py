"""Who is awake: the fenced lease, its register in git, its promises over the tunnel."""
