package main

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	keySize   = 16
	valueSize = 100
)

// keyOf is entity i's key. Keys are in order of i, values are not compressible.
func keyOf(i int) []byte { return fmt.Appendf(nil, "entity-%09d", i) }

func valueOf(rng *rand.Rand) []byte {
	b := make([]byte, 0, valueSize+8)
	for len(b) < valueSize {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return b[:valueSize]
}

// figure is what one candidate did in one round of one measurement.
type figure struct {
	PerSecond float64       `json:"per_second,omitempty"`
	P50       time.Duration `json:"p50_ns,omitempty"`
	P99       time.Duration `json:"p99_ns,omitempty"`
	Bytes     int64         `json:"bytes,omitempty"`
	Peak      int64         `json:"peak_bytes,omitempty"`
	Written   int64         `json:"written_bytes,omitempty"`
}

// timed calls f n times.
func timed(n int, f func() error) (figure, error) {
	took := make([]time.Duration, 0, n)
	begin := time.Now()
	for range n {
		start := time.Now()
		if err := f(); err != nil {
			return figure{}, err
		}
		took = append(took, time.Since(start))
	}
	all := time.Since(begin)
	slices.Sort(took)
	return figure{PerSecond: float64(n) / all.Seconds(), P50: took[n/2], P99: took[n*99/100]}, nil
}

// batches writes n batches of a size, with keys at random among so many.
func batches(c candidate, n, size, among int, rng *rand.Rand) (figure, error) {
	f, err := timed(n, func() error { return c.write(someEntries(size, among, rng)) })
	f.PerSecond *= float64(size)
	return f, err
}

func someEntries(n, among int, rng *rand.Rand) []entry {
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{keyOf(rng.IntN(among)), valueOf(rng)}
	}
	return entries
}

func reads(c candidate, n, among int, rng *rand.Rand) (figure, error) {
	return timed(n, func() error {
		value, err := c.get(keyOf(rng.IntN(among)))
		if err == nil && len(value) != valueSize {
			err = fmt.Errorf("value of %d bytes", len(value))
		}
		return err
	})
}

// opening is how long an open takes; the store stays open.
func opening(c candidate, dir string) (figure, error) {
	start := time.Now()
	err := c.open(dir)
	return figure{P50: time.Since(start)}, err
}

// rewrites overwrites a tenth of the entities ten times, in batches of 512.
func rewrites(c candidate, dir string, entities int, rng *rand.Rand) (figure, error) {
	var f figure
	before, start := writtenBytes(), time.Now()
	n := 10 * (entities / 10)
	for done := 0; done < n; done += 512 {
		if err := c.write(someEntries(512, entities, rng)); err != nil {
			return f, err
		}
		if done/512%50 == 0 {
			f.Peak = max(f.Peak, folderBytes(dir))
		}
	}
	f.PerSecond = float64(n) / time.Since(start).Seconds()
	f.Written, f.Bytes = writtenBytes()-before, folderBytes(dir)
	f.Peak = max(f.Peak, f.Bytes)
	return f, nil
}

// folderBytes is how much of the disk a folder takes.
func folderBytes(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var stat unix.Stat_t
		if err == nil && !d.IsDir() && unix.Stat(path, &stat) == nil {
			sum += stat.Blocks * 512
		}
		return nil
	})
	return sum
}

// writtenBytes is what this process gave to the disk.
func writtenBytes() (n int64) {
	data, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(data)) {
		_, _ = fmt.Sscanf(line, "write_bytes: %d", &n)
	}
	return n
}

// forget takes a folder's files out of the page cache.
func forget(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		_ = f.Sync()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}
