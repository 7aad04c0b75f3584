package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

var diskCycles = flag.Int("disk-cycles", 5, "how often TestDiskFull fills the disk")

const (
	// diskBytes is the size of the disk of the store under test.
	diskBytes = 8 << 20
	// refusedIn is how soon a full disk's refusal is there: the promise, for the median.
	refusedIn = 100 * time.Millisecond
	// writableIn bounds the wait until a store takes writes again.
	writableIn = 15 * time.Second
	// diskWrites are tried while the disk is full.
	diskWrites = 20
)

// A full disk refuses writes at once and for sure, reads go on, other stores too, and all is well when there is room
// again. Nothing that was acknowledged is lost, nothing that was refused appears.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t)
	c := startStores(t, stores.Options{
		Count: 3, TLS: true, Types: []*configv1.EntityType{counterType(configv1.WriteLevel_WRITE_LEVEL_LOCAL)},
		Data: func(i int) string {
			if i == 0 {
				return filepath.Join(disk, "store")
			}
			return filepath.Join(t.TempDir(), "store")
		},
	})
	d := &diskRun{t: t, cluster: c, filler: filepath.Join(disk, "filler")}
	for i := range *diskCycles {
		d.cycle(i)
		if t.Failed() {
			return
		}
	}
	slices.Sort(d.refusals)
	t.Logf("%d cycles: %d acknowledged, %d refused (p50 %v, max %v), %d unknown; writable %v after there was room (slowest)",
		*diskCycles, d.acked.Load(), len(d.refusals), d.refusals[len(d.refusals)/2], d.refusals[len(d.refusals)-1], d.unknown, d.slowest)
	if p50 := d.refusals[len(d.refusals)/2]; p50 > refusedIn {
		t.Errorf("a refusal took %v in the median, want at most %v", p50, refusedIn)
	}
	d.check("at the end")
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	if err := c.StartStore(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	d.check("after kill -9")
}

type diskRun struct {
	t        *testing.T
	cluster  *stores.Cluster
	filler   string
	acked    atomic.Int64
	unknown  int64
	refusals []time.Duration
	slowest  time.Duration
}

// write increments at store i.
func (d *diskRun) write(i int) (storev1.Outcome, time.Duration, error) {
	conn, err := d.cluster.Dial(i)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(d.t.Context(), lostDeadline)
	defer cancel()
	began := time.Now()
	_, err = conn.Commit(ctx, testCounter, lostKey(0), lostDeadline, stores.Increment())
	took := time.Since(began)
	outcome := stores.Applied(err)
	switch outcome {
	case storev1.Outcome_OUTCOME_APPLIED:
		d.acked.Add(1)
	case storev1.Outcome_OUTCOME_UNKNOWN:
		d.unknown++
	}
	return outcome, took, err
}

func (d *diskRun) cycle(n int) {
	t := d.t
	for range 50 {
		if _, _, err := d.write(0); err != nil {
			t.Fatalf("cycle %d: with room on the disk: %v", n, err)
		}
	}
	if err := fillUp(d.filler); err != nil {
		t.Fatal(err)
	}
	// What the log's file has left still takes some.
	for end := time.Now().Add(writableIn); ; {
		outcome, took, err := d.write(0)
		if outcome == storev1.Outcome_OUTCOME_NOT_APPLIED {
			d.refusals = append(d.refusals, took)
			break
		}
		if err := errors.Join(err, fillUp(d.filler)); err != nil || time.Now().After(end) {
			t.Fatalf("cycle %d: the disk is full, and a write ends with %v: %v", n, outcome, err)
		}
	}
	for range diskWrites {
		outcome, took, err := d.write(0)
		if outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
			t.Errorf("cycle %d: the disk is full, and a write ends with %v: %v", n, outcome, err)
		}
		d.refusals = append(d.refusals, took)
		if _, err := d.value(0); err != nil {
			t.Errorf("cycle %d: the disk is full, and a read fails: %v", n, err)
		}
		// The others go on; this one gets to know it when it can.
		if _, _, err := d.write(1); err != nil {
			t.Errorf("cycle %d: a disk is full, and a write at another store fails: %v", n, err)
		}
	}
	if err := os.Remove(d.filler); err != nil {
		t.Fatal(err)
	}
	room := time.Now()
	if err := rig.PollFor(writableIn, func() error {
		_, _, err := d.write(0)
		return err
	}); err != nil {
		t.Fatalf("cycle %d: there is room again: %v", n, err)
	}
	d.slowest = max(d.slowest, time.Since(room))
}

func (d *diskRun) value(i int) (int64, error) {
	conn, err := d.cluster.Dial(i)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	state, err := conn.Get(d.t.Context(), testCounter, lostKey(0), false)
	return int64(state.GetValue().GetGcounter()), err
}

// check holds all stores to the law.
func (d *diskRun) check(when string) {
	d.t.Helper()
	low, high := d.acked.Load(), d.acked.Load()+d.unknown
	within(d.t, agreeWait, func() error {
		v, err := same(d.t.Context(), d.cluster, lostKey(0))
		if err == nil && (v < low || v > high) {
			err = fmt.Errorf("%s the value is %d, want %d to %d", when, v, low, high)
		}
		return err
	})
}

// fillUp writes until nothing more fits.
func fillUp(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return f.Close()
}

// smallDisk mounts a small disk for this test alone.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		cannot(t, "a small disk has to be mounted, and that needs root")
	}
	if err := command(t.Context(), "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", diskBytes), "hf-e2e", dir); err != nil {
		cannot(t, err.Error())
	}
	t.Cleanup(func() {
		if err := command(context.Background(), "umount", "-l", dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
