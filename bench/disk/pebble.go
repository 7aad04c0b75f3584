package main

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// pebbleStore is Pebble with its defaults, bloom filters and a block cache of 64 MiB.
type pebbleStore struct {
	db    *pebble.DB
	cache *pebble.Cache
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, _ ...any) {
	panic(format)
}

func (p *pebbleStore) open(dir string) (err error) {
	p.cache = pebble.NewCache(64 << 20)
	options := &pebble.Options{Cache: p.cache, Logger: silent{}}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	p.db, err = pebble.Open(dir, options)
	return err
}

func (p *pebbleStore) put(batch []entry, options *pebble.WriteOptions) error {
	b := p.db.NewBatch()
	defer b.Close()
	for _, e := range batch {
		if err := b.Set(e.key, e.value, nil); err != nil {
			return err
		}
	}
	return b.Commit(options)
}

func (p *pebbleStore) fill(entries []entry) error {
	for len(entries) > 0 {
		n := min(len(entries), 10_000)
		if err := p.put(entries[:n], pebble.NoSync); err != nil {
			return err
		}
		entries = entries[n:]
	}
	if err := p.db.Flush(); err != nil {
		return err
	}
	return p.db.Compact(background, []byte{0}, []byte{0xff}, true)
}

func (p *pebbleStore) write(batch []entry) error { return p.put(batch, pebble.Sync) }

func (p *pebbleStore) get(key []byte) ([]byte, error) {
	value, closer, err := p.db.Get(key)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, value...), nil
}

func (p *pebbleStore) close() error {
	err := p.db.Close()
	p.cache.Unref()
	return err
}
