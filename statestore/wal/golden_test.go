package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

var update = flag.Bool("update", false, "write the golden folder anew; only after the version was raised")

const golden = "testdata/version2"

// writeGolden makes the log of the golden folder: a snapshot, a segment with a batch that failed, was recovered from and does
// not count, a last segment.
func writeGolden(t *testing.T, dir string) {
	t.Helper()
	fs := &failing{}
	l, err := wal.Open(dir, wal.Options{FS: fs}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "the snapshot stands for this")
	replaceSections(t, l, "first body", "", "third body")
	mustAppend(t, l, "one", "", "two")
	fs.fail = true
	if err := l.Append(batch("never there")); !errors.Is(err, wal.ErrUnknown) {
		t.Fatal(err)
	}
	fs.fail = false
	if err := l.Recover(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "three")
	l.Close()
}

// failing is a real disk whose syncs fail after the write.
type failing struct {
	wal.OS
	fail bool
}

func (f *failing) Create(name string) (wal.File, error) {
	file, err := f.OS.Create(name)
	return failingFile{file, f}, err
}

type failingFile struct {
	wal.File
	disk *failing
}

func (f failingFile) Sync() error {
	if f.disk.fail {
		return errBroken
	}
	return f.File.Sync()
}

// What any version of this layout wrote can be read.
func TestGoldenFolder(t *testing.T) {
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		writeGolden(t, golden)
		if err := os.Remove(filepath.Join(golden, "LOCK")); err != nil {
			t.Fatal(err)
		}
	}
	written := t.TempDir()
	writeGolden(t, written)
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(filepath.Join(copied, "0000000000000002.log"))
	if err != nil || !bytes.Contains(all, []byte("never there")) {
		t.Fatalf("the golden folder has no batch that does not count: %v", err)
	}
	for _, dir := range []string{copied, written} {
		var got []string
		var refs []wal.Ref
		l, err := wal.Open(dir, wal.Options{}, func(meta []byte, ref wal.Ref) error {
			got, refs = append(got, string(meta)), append(refs, ref)
			return nil
		}, func(record []byte) error {
			got = append(got, string(record))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range refs {
			body, err := l.ReadSection(ref)
			if err != nil {
				t.Error(err)
			}
			got = append(got, string(body))
		}
		l.Close()
		want := []string{"0", "1", "2", "one", "", "two", "three", "first body", "", "third body"}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", dir, got, want)
		}
	}
}

// A folder of another layout is refused, with what to do, and stays as it is.
func TestOtherVersions(t *testing.T) {
	version1, err := os.ReadFile("testdata/version1/0000000000000002.log")
	if err != nil {
		t.Fatal(err)
	}
	version3, err := os.ReadFile(golden + "/0000000000000003.log")
	if err != nil {
		t.Fatal(err)
	}
	version3[7] = 3
	binary.LittleEndian.PutUint32(version3[24:], crc32.Checksum(version3[:24], crc32.MakeTable(crc32.Castagnoli)))
	for want, fill := range map[string]func(dir string) error{
		"move the store's data directory away":            func(dir string) error { return os.CopyFS(dir, os.DirFS("testdata/version1")) },
		"version 1, this is version 2":                    func(dir string) error { return os.WriteFile(dir+"/0000000000000001.log", version1, 0o600) },
		"version 3, this is version 2: start the version": func(dir string) error { return os.WriteFile(dir+"/0000000000000001.log", version3, 0o600) },
	} {
		dir := t.TempDir()
		if err := fill(dir); err != nil {
			t.Fatal(err)
		}
		before := folder(t, dir)
		_, err := wal.Open(dir, wal.Options{}, nil, nil)
		if !errors.Is(err, wal.ErrVersion) || errors.Is(err, wal.ErrDamaged) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want %q", err, want)
		}
		if after := folder(t, dir); after != before {
			t.Errorf("was %s, is %s", before, after)
		}
	}
}

// folder is the content of a folder, without the lock.
func folder(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "LOCK" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %x\n", e.Name(), data)
	}
	return all.String()
}
