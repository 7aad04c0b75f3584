package entitykey

const (
	// MaxKeyBytes bounds a key: it goes into headers, logs and etcd's keys, where more would not fit or help.
	MaxKeyBytes = 1024

	// MaxDepth bounds the steps of a path and the nesting of groups that are skipped, so that a hostile message costs
	// neither stack nor time.
	MaxDepth = 32

	// MaxParts bounds the fields of a composite key: the message is walked once for each.
	MaxParts = 16

	// MaxOthers bounds the further entities that one request names: etcd takes 128 operations in a transaction.
	MaxOthers = 127
)
