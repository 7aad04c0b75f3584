package main

import "os"

// An entry is one entity: a key and its state.
type entry struct{ key, value []byte }

// A candidate keeps entries on disk.
type candidate interface {
	// open opens or makes the store in a folder; it can answer get when it returns.
	open(dir string) error
	// fill puts the first entries into an empty store, as fast as it can, and leaves them on the disk, settled.
	fill(entries []entry) error
	// write makes a batch durable, in one sync.
	write(batch []entry) error
	// get reads an entry from the disk.
	get(key []byte) ([]byte, error)
	close() error
}

var candidates = []struct {
	name string
	make func() candidate
}{
	{"own log + sections", func() candidate { return new(own) }},
	{"Pebble v2.1.4", func() candidate { return new(pebbleStore) }},
	{"bbolt v1.5.0", func() candidate { return new(boltStore) }},
}

// mkdir makes a folder that only this user reads.
func mkdir(dir string) error { return os.MkdirAll(dir, 0o700) }
