package localmesh

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fill puts files and, where a name ends in a slash, folders into dir.
func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		folder := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			folder = path
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if folder == path {
			continue
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// inside lists all that is in dir.
func inside(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestForeignDataDirectoryIsLeftAlone(t *testing.T) {
	for _, c := range []struct {
		has  []string
		want string
	}{
		{[]string{"etcd/", "nodes/theirs"}, "is not a data directory of holdfast: it has etcd"},
		{[]string{"logs/theirs"}, "it has logs"},
		{[]string{"run"}, "it has run"},
		{[]string{"lock", "logs/theirs", "nodes/theirs"}, "it has nodes"},
		{[]string{"lock/", "logs/"}, "it has lock"},
		{[]string{"lock", "logs"}, "it has logs"},
		{[]string{"holdfast.yaml"}, "it has holdfast.yaml"},
		{[]string{"holdfast-data", "etcd/"}, "is of another version"},
		{[]string{"holdfast-data/"}, "is a directory"},
	} {
		for _, reset := range []bool{false, true} {
			o := testOptions(t.TempDir(), 1, 23100)
			o.Reset = reset
			fill(t, o.DataDir, c.has...)
			before := inside(t, o.DataDir)
			_, err := New(o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, reset %v: got %v, want %q", c.has, reset, err, c.want)
			}
			if got := inside(t, o.DataDir); !slices.Equal(got, before) {
				t.Errorf("%q, reset %v: got %q, had %q", c.has, reset, got, before)
			}
		}
	}
}

func TestResetRemovesDataOnly(t *testing.T) {
	o := testOptions(t.TempDir(), 1, testBase(t))
	o.Reset = true
	for i, want := range []bool{true, false} {
		m, err := New(o)
		if err != nil {
			t.Fatalf("start %d: %v", i+1, err)
		}
		m.Close()
		if _, err := os.Stat(filepath.Join(o.DataDir, "etcd/member")); err == nil {
			t.Errorf("start %d: the data is still there", i+1)
		}
		if _, err := os.Stat(filepath.Join(o.DataDir, "mine")); err == nil == want {
			t.Errorf("start %d: mine: got %v", i+1, err)
		}
		fill(t, o.DataDir, "etcd/member", "nodes/node-1/store", "mine")
	}
	o.Reset = false
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if _, err := os.Stat(filepath.Join(o.DataDir, "nodes/node-1/store")); err != nil {
		t.Errorf("without a reset: %v", err)
	}
}

// A folder in which a start failed early is used by the next one, which removes nothing from it.
func TestLeftoversOfAFailedStart(t *testing.T) {
	o := testOptions(t.TempDir(), 1, testBase(t))
	o.Reset = true
	fill(t, o.DataDir, "lock", "logs/etcd.log", "holdfast-data.new")
	if err := os.Symlink("/nowhere", filepath.Join(o.DataDir, "run")); err != nil {
		t.Fatal(err)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	want := []string{"", "/holdfast-data", "/lock", "/logs", "/logs/etcd.log", "/run"}
	if got := inside(t, o.DataDir); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFailedStartLeavesNoNewFolder(t *testing.T) {
	l, err := net.Listen("tcp", address(testBase(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := testOptions(t.TempDir(), 1, l.Addr().(*net.TCPAddr).Port)
	if _, err := New(o); err == nil {
		t.Fatal("started on a taken port")
	}
	if _, err := os.Stat(o.DataDir); !os.IsNotExist(err) {
		t.Errorf("the new folder is still there: %v", err)
	}
	fill(t, o.DataDir, "lock")
	if _, err := New(o); err == nil {
		t.Fatal("started on a taken port")
	}
	if got, want := inside(t, o.DataDir), []string{"", "/lock"}; !slices.Equal(got, want) {
		t.Errorf("a folder that was there: got %q, want %q", got, want)
	}
}
