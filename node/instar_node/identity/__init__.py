"""Who a machine is: its keys, its words for people, and the signed registry of all machines of the mesh."""
