package strong

// Caller is who takes turns: a connection of the API, or another store. Its turns end when it goes.
type Caller struct{}
