package wal_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

var (
	soak     = flag.Bool("soak", false, "10,000 random crashes and as many random errors, and every boundary with more seeds")
	seedFlag = flag.Uint64("seed", 1, "the first seed of the random crashes")
)

// scriptSeed and scriptLength are the script that is crashed and disturbed at every boundary.
const (
	scriptSeed   = 7
	scriptLength = 200
)

func times(few, many int) int {
	if *soak {
		return many
	}
	return few
}

// The script does all that it should.
func TestScript(t *testing.T) {
	fs := &faultfs.FS{}
	r, err := script(fs, scriptSeed, scriptLength)
	if err != nil {
		t.Fatal(err)
	}
	if fs.Ops() < 500 || len(r.ids) < 150 || r.recoveries < 10 || r.gone < 10 {
		t.Errorf("script of %d boundaries, %d records, %d recoveries, %d reads: does too little", fs.Ops(), len(r.ids), r.recoveries, r.gone)
	}
	l, got, err := load(fs)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := r.check(got); err != nil || len(got.refs) != sections || len(got.replayed) == 0 {
		t.Errorf("got %d sections, %d records: %v", len(got.refs), len(got.replayed), err)
	}
	t.Logf("%d boundaries, %d records, %d disowned, %d recoveries", fs.Ops(), len(r.ids), len(r.disowned), r.recoveries)
}

// A crash at every boundary: what was acknowledged is there, what was disowned is not, a batch is there whole or not at all.
func TestCrashAtEveryBoundary(t *testing.T) {
	dry := &faultfs.FS{}
	if _, err := script(dry, scriptSeed, scriptLength); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= dry.Ops(); at++ {
		fs, r := crashAt(t, scriptSeed, at)
		for seed := range uint64(times(2, 20)) {
			rng := rand.New(rand.NewPCG(uint64(at), seed))
			if err := afterCrash(fs.Crash(rng), r, rng); err != nil {
				t.Fatalf("crash at %d, seed %d: %v", at, seed, err)
			}
		}
	}
}

func TestCrashAtRandom(t *testing.T) {
	for i := range uint64(times(200, 10_000)) {
		seed := *seedFlag + i
		rng := rand.New(rand.NewPCG(seed, 1))
		fs, r := crashAt(t, seed, 1+rng.IntN(700))
		if err := afterCrash(fs.Crash(rng), r, rng); err != nil {
			t.Fatalf("-seed %d: %v", seed, err)
		}
	}
}

func crashAt(t *testing.T, seed uint64, at int) (*faultfs.FS, *run) {
	t.Helper()
	fs := &faultfs.FS{}
	fs.Inject(func(n int, _, _ string) error {
		if n == at {
			return faultfs.ErrPowerOff
		}
		return nil
	})
	r, err := script(fs, seed, scriptLength)
	if err != nil {
		t.Fatalf("script %d, crash at %d: %v", seed, at, err)
	}
	return fs, r
}

// afterCrash opens what the crash left, goes on with it, and crashes again: what was found must stay.
func afterCrash(fs *faultfs.FS, r *run, rng *rand.Rand) error {
	if rng.IntN(2) == 0 {
		// The power leaves during the start, too.
		off := fs.Ops() + 1 + rng.IntN(12)
		fs.Inject(func(n int, _, _ string) error {
			if n == off {
				return faultfs.ErrPowerOff
			}
			return nil
		})
		l, _, err := load(fs)
		if err == nil {
			l.Close()
		} else if !errors.Is(err, faultfs.ErrPowerOff) {
			return err
		}
		fs = fs.Crash(rng)
	}
	l, got, err := load(fs)
	if err != nil {
		return err
	}
	if err := r.check(got); err != nil {
		return err
	}
	const after = 1 << 18
	for l.Err() != nil { // of an error that lasted
		if err := l.Recover(); err != nil && !errors.Is(err, errBroken) {
			return err
		}
	}
	if err := l.Append([][]byte{recordOf(after)}); err != nil {
		return err
	}
	l.Close()
	l, again, err := load(fs.Crash(rng))
	if err != nil {
		return fmt.Errorf("second crash: %w", err)
	}
	defer l.Close()
	if !slices.Equal(again.ids, append(slices.Clone(got.ids), after)) {
		return fmt.Errorf("second crash: %d, then %d", got.ids, again.ids)
	}
	return nil
}

// A killed process leaves what it wrote in the page cache: the next one shows it, so it must stay when the power then fails.
func TestKillThenCrash(t *testing.T) {
	dry := &faultfs.FS{}
	if _, err := script(dry, scriptSeed, scriptLength); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= dry.Ops(); at++ {
		fs, r := crashAt(t, scriptSeed, at)
		fs.Kill()
		if err := afterCrash(fs, r, rand.New(rand.NewPCG(uint64(at), 0))); err != nil {
			t.Fatalf("kill at %d: %v", at, err)
		}
	}
}

// An error at every boundary: the script goes on, with Recover where it must, and nothing is lost then or in a crash later.
func TestErrorAtEveryBoundary(t *testing.T) {
	dry := &faultfs.FS{}
	if _, err := script(dry, scriptSeed, scriptLength); err != nil {
		t.Fatal(err)
	}
	lengths := []int{1}
	if *soak {
		lengths = []int{1, 2, 3, 5}
	}
	for at := 1; at <= dry.Ops(); at++ {
		for _, length := range lengths {
			if err := disturbed(scriptSeed, at, length, 0, 1, rand.New(rand.NewPCG(uint64(at), 0))); err != nil {
				t.Fatalf("%d errors from %d on: %v", length, at, err)
			}
		}
	}
}

// An error at every boundary, and soon after it the power goes: what the error left half done must do no harm.
func TestErrorThenCrashAtEveryBoundary(t *testing.T) {
	dry := &faultfs.FS{}
	if _, err := script(dry, scriptSeed, scriptLength); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= dry.Ops(); at++ {
		rng := rand.New(rand.NewPCG(uint64(at), 3))
		for after := range times(1, 12) {
			if !*soak {
				after = rng.IntN(12)
			}
			if err := disturbed(scriptSeed, at, 1, at+1+after, 6, rng); err != nil {
				t.Fatalf("error at %d, crash at %d: %v", at, at+1+after, err)
			}
		}
	}
}

// Errors, a kill or a crash among them, and reads that fail, all at random.
func TestErrorsAtRandom(t *testing.T) {
	for i := range uint64(times(200, 10_000)) {
		seed := *seedFlag + i
		rng := rand.New(rand.NewPCG(seed, 2))
		off := 0
		if rng.IntN(2) == 0 {
			off = 1 + rng.IntN(900)
		}
		if err := disturbed(seed, 1+rng.IntN(700), 1+rng.IntN(10), off, 2, rng); err != nil {
			t.Fatalf("-seed %d: %v", seed, err)
		}
	}
}

// disturbed runs the script with errors at some operations, without power from operation off on (0: never), and then goes on
// after some crashes, or after a kill and a crash.
func disturbed(seed uint64, from, length, off, crashes int, rng *rand.Rand) error {
	fs := &faultfs.FS{}
	reads := 0
	if rng.IntN(2) == 0 {
		reads = rng.IntN(300)
	}
	fs.Inject(func(n int, _, _ string) error {
		switch {
		case n == 0:
			if reads--; reads == 0 {
				return errBroken
			}
		case n == off:
			return faultfs.ErrPowerOff
		case n >= from && n < from+length:
			return errBroken
		}
		return nil
	})
	r, err := script(fs, seed, scriptLength)
	if err != nil {
		return err
	}
	for range crashes {
		if err := afterCrash(fs.Crash(rng), r, rng); err != nil {
			return err
		}
	}
	fs.Kill()
	return afterCrash(fs, r, rng)
}
