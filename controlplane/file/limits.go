package file

import "time"

const (
	// debounce is how long a file must be left alone before it is read: editors write in several steps.
	debounce = 100 * time.Millisecond
	// recheck finds changes that the kernel tells nobody of, such as those behind a symbolic link.
	recheck = 2 * time.Second
)
