package main

import (
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// boltStore is bbolt as etcd sets it up: the free list as a map.
type boltStore struct{ db *bolt.DB }

var bucket = []byte("entities")

func (s *boltStore) open(dir string) (err error) {
	if err := mkdir(dir); err != nil {
		return err
	}
	s.db, err = bolt.Open(filepath.Join(dir, "bolt.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (s *boltStore) fill(entries []entry) error {
	for piece := range slices.Chunk(entries, 50_000) {
		if err := s.write(piece); err != nil {
			return err
		}
	}
	return nil
}

func (s *boltStore) write(batch []entry) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for _, e := range batch {
			if err := b.Put(e.key, e.value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *boltStore) get(key []byte) (value []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucket).Get(key)
		if v == nil {
			return errNone
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

func (s *boltStore) close() error { return s.db.Close() }
