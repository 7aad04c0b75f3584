package grpcframe

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name       string
		in         []byte
		max        int
		msg, rest  string
		compressed bool
		err        error
	}{
		{name: "nothing", max: 10, err: ErrIncomplete},
		{name: "half a header", in: []byte{0, 0, 0}, max: 10, rest: "\x00\x00\x00", err: ErrIncomplete},
		{name: "header only", in: []byte{0, 0, 0, 0, 1}, max: 10, rest: "\x00\x00\x00\x00\x01", err: ErrIncomplete},
		{name: "empty message", in: []byte{0, 0, 0, 0, 0}, max: 10},
		{name: "empty message, none taken", in: []byte{0, 0, 0, 0, 0}, max: 0},
		{name: "one", in: []byte("\x00\x00\x00\x00\x02hi"), max: 2, msg: "hi"},
		{name: "compressed, and more", in: []byte("\x01\x00\x00\x00\x02hi\x00\x01"), max: 10, msg: "hi", rest: "\x00\x01", compressed: true},
		{name: "over the limit, before it is there", in: []byte{0, 0, 0, 0, 11}, max: 10, rest: "\x00\x00\x00\x00\x0b", err: ErrTooLarge},
		{name: "4 GiB", in: []byte{0, 255, 255, 255, 255}, max: 1 << 20, rest: "\x00\xff\xff\xff\xff", err: ErrTooLarge},
		{name: "4 GiB wanted", in: []byte{0, 255, 255, 255, 255}, max: math.MaxInt, rest: "\x00\xff\xff\xff\xff", err: ErrIncomplete},
		{name: "negative limit", in: []byte{0, 0, 0, 0, 0}, max: -1, rest: "\x00\x00\x00\x00\x00", err: ErrTooLarge},
		{name: "bad flag at once", in: []byte{2}, max: 10, rest: "\x02", err: ErrBadFlag},
		{name: "bad flag", in: []byte("POST / HTTP"), max: 10, rest: "POST / HTTP", err: ErrBadFlag},
	} {
		t.Run(tc.name, func(t *testing.T) {
			msg, compressed, rest, err := Parse(tc.in, tc.max)
			if string(msg) != tc.msg || string(rest) != tc.rest || compressed != tc.compressed || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %v, %q, %v; want %q, %v, %q, %v", msg, compressed, rest, err, tc.msg, tc.compressed, tc.rest, tc.err)
			}
		})
	}
}

func TestParsedMessageDoesNotReachIntoRest(t *testing.T) {
	buf := Append(Append(nil, []byte("one")), []byte("two"))
	msg, _, rest, err := Parse(buf, 10)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(msg, "overwrite"...)
	if msg, _, _, err = Parse(rest, 10); err != nil || string(msg) != "two" {
		t.Errorf("the second frame is %q, %v", msg, err)
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	one, huge := Append(nil, make([]byte, 100)), []byte{0, 255, 255, 255, 255, 1}
	for name, in := range map[string][]byte{"whole": one, "incomplete": one[:50], "declared 4 GiB": huge} {
		if n := testing.AllocsPerRun(100, func() { _, _, _, _ = Parse(in, math.MaxInt) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// frames parses the whole of buf.
func frames(buf []byte, limit int) (out []byte, rest []byte, err error) {
	for {
		var msg []byte
		var compressed bool
		msg, compressed, buf, err = Parse(buf, limit)
		if err != nil {
			return out, buf, err
		}
		if compressed {
			out = append(out, 'c')
		}
		out = Append(out, msg)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02hi\x01\x00\x00\x00\x00\x00\x00"), uint16(100), uint8(1))
	f.Add([]byte("\x00\xff\xff\xff\xff"), uint16(4), uint8(2))
	f.Add([]byte("\x00\x00\x00\x00\x05hello"), uint16(4), uint8(3))
	f.Add([]byte("\x02"), uint16(4), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, limit uint16, chunk uint8) {
		want, wantRest, wantErr := frames(in, int(limit))

		// The same bytes as they would come, in chunks.
		var got, buf []byte
		var err error = ErrIncomplete
		step := int(chunk) + 1
		for at := 0; at < len(in) && errors.Is(err, ErrIncomplete); at += step {
			buf = append(buf, in[at:min(at+step, len(in))]...)
			var more []byte
			more, buf, err = frames(buf, int(limit))
			got = append(got, more...)
		}
		if !bytes.Equal(got, want) || (len(in) > 0 && err.Error() != wantErr.Error()) {
			t.Fatalf("in chunks of %d: %q, %v; in one: %q, %v", step, got, err, want, wantErr)
		}
		if errors.Is(wantErr, ErrIncomplete) && !bytes.Equal(buf, wantRest) {
			t.Fatalf("in chunks of %d %q is left; in one %q", step, buf, wantRest)
		}

		// What was parsed is a frame again.
		if msg, compressed, rest, err := Parse(in, int(limit)); err == nil {
			again := append(Append(nil, msg), rest...)
			if compressed {
				again[0] = 1
			}
			if !bytes.Equal(again, in) {
				t.Fatalf("%q became %q", in, again)
			}
		}
		// A refusal may describe itself, nothing may grow with what is declared.
		if n := testing.AllocsPerRun(1, func() { _, _, _, _ = Parse(in, int(limit)) }); n > 8 {
			t.Fatalf("%v allocations", n)
		}
	})
}
