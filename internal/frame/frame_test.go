package frame

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

func request(key string) *storev1.Request {
	return &storev1.Request{Id: 7, Call: &storev1.Request_Get{Get: &storev1.Get{Entity: &storev1.Entity{Type: "t", Key: key}}}}
}

func TestRoundTrip(t *testing.T) {
	var wire []byte
	var err error
	want := []*storev1.Request{request("a"), {}, request(string(bytes.Repeat([]byte("k"), 100_000)))}
	for _, m := range want {
		if wire, err = Append(wire, m); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(wire), "by byte": iotest.OneByteReader(bytes.NewReader(wire)),
		"with the error": iotest.DataErrReader(bytes.NewReader(wire)),
	} {
		var buf []byte
		for i, m := range want {
			payload, err := Read(r, buf)
			if err != nil {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
			got := &storev1.Request{}
			if err := proto.Unmarshal(payload, got); err != nil || !proto.Equal(got, m) {
				t.Fatalf("%s: frame %d is not what was written: %v", name, i, err)
			}
			buf = payload
		}
		if _, err := Read(r, buf); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last frame: %v, want EOF", name, err)
		}
	}
}

func TestReadEndsWithinFrame(t *testing.T) {
	wire, err := Append(nil, request("a"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(wire); n++ {
		if _, err := Read(bytes.NewReader(wire[:n]), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d of %d bytes: %v, want %v", n, len(wire), err, io.ErrUnexpectedEOF)
		}
	}
}

func TestReadReusesBuffer(t *testing.T) {
	wire, err := Append(nil, request("a"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 1000)
	got, err := Read(bytes.NewReader(wire), buf)
	if err != nil || &got[0] != &buf[:1][0] {
		t.Errorf("did not read into the buffer: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := Read(bytes.NewReader([]byte{0, 0x40, 0, 1, 0}), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("declared one byte over Max: %v, want %v", err, ErrTooLarge)
	}
	if n := testing.AllocsPerRun(1, func() {
		_, _ = Read(bytes.NewReader([]byte{255, 255, 255, 255}), nil)
	}); n > 10 {
		t.Errorf("a declared 4 GiB cost %v allocations", n)
	}
	before := []byte("before")
	got, err := Append(before, request(string(make([]byte, Max))))
	if !errors.Is(err, ErrTooLarge) || string(got) != "before" {
		t.Errorf("append over Max: %d bytes, %v; want what was there before, and %v", len(got), err, ErrTooLarge)
	}
}

func TestAppendRefusesWhatIsNotUTF8(t *testing.T) {
	got, err := Append([]byte("before"), request("\xff"))
	if err == nil || string(got) != "before" {
		t.Errorf("got %q, %v; want what was there before, and an error", got, err)
	}
}

func FuzzRead(f *testing.F) {
	wire, err := Append(nil, request("seed"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire)
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 0x40, 0, 1, 0})
	f.Add(append(wire, 0, 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		// Read byte by byte and at once, the frames are the same, and with their lengths they are the input again.
		whole, slow := bytes.NewReader(in), iotest.OneByteReader(bytes.NewReader(in))
		var back []byte
		for {
			a, errA := Read(whole, nil)
			b, errB := Read(slow, nil)
			if !bytes.Equal(a, b) || (errA == nil) != (errB == nil) || (errA != nil && errA.Error() != errB.Error()) {
				t.Fatalf("at once %q, %v; by byte %q, %v", a, errA, b, errB)
			}
			if errA != nil {
				if errors.Is(errA, io.EOF) && !bytes.Equal(back, in) {
					t.Fatalf("%q was read as %q", in, back)
				}
				return
			}
			back = append(back, byte(len(a)>>24), byte(len(a)>>16), byte(len(a)>>8), byte(len(a)))
			back = append(back, a...)
		}
	})
}
