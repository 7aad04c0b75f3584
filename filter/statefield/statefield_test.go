package statefield

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const stateField = 5

// descriptor is
//
//	message M {
//	  optional string name = 1; repeated int32 nums = 2; optional M child = 3; optional group G = 4 { optional int64 n = 1; }
//	  optional M state = 5; repeated string more = 6;
//	}
func descriptor(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	field := func(name string, num int32, label descriptorpb.FieldDescriptorProto_Label, typ descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &num, Label: label.Enum(), Type: typ.Enum()}
		if of != "" {
			f.TypeName = &of
		}
		return f
	}
	const (
		opt = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		rep = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	)
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("t.proto"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("M"),
			Field: []*descriptorpb.FieldDescriptorProto{
				field("name", 1, opt, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
				field("nums", 2, rep, descriptorpb.FieldDescriptorProto_TYPE_INT32, ""),
				field("child", 3, opt, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".M"),
				field("g", 4, opt, descriptorpb.FieldDescriptorProto_TYPE_GROUP, ".M.G"),
				field("state", stateField, opt, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".M"),
				field("more", 6, rep, descriptorpb.FieldDescriptorProto_TYPE_STRING, ""),
			},
			NestedType: []*descriptorpb.DescriptorProto{{
				Name:  proto.String("G"),
				Field: []*descriptorpb.FieldDescriptorProto{field("n", 1, opt, descriptorpb.FieldDescriptorProto_TYPE_INT64, "")},
			}},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Messages().Get(0)
}

func str(num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
}

func varint(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

func group(num protowire.Number, in ...[]byte) []byte {
	b := protowire.AppendTag(nil, num, protowire.StartGroupType)
	return protowire.AppendTag(append(b, cat(in...)...), num, protowire.EndGroupType)
}

func cat(bs ...[]byte) []byte { return bytes.Join(bs, nil) }

func TestCut(t *testing.T) {
	a, b, s1, s2 := str(1, "a"), varint(2, 7), str(stateField, "one"), str(stateField, "two")
	for _, tc := range []struct {
		name         string
		in           []byte
		rest, merged []byte
		found        bool
		err          error
	}{
		{name: "empty"},
		{name: "field 0 asked for, none there", in: a, rest: a},
		{name: "none", in: cat(a, b), rest: cat(a, b)},
		{name: "only", in: s1, merged: []byte("one"), found: true},
		{name: "first", in: cat(s1, a, b), rest: cat(a, b), merged: []byte("one"), found: true},
		{name: "last", in: cat(a, b, s1), rest: cat(a, b), merged: []byte("one"), found: true},
		{name: "between", in: cat(a, s1, b), rest: cat(a, b), merged: []byte("one"), found: true},
		{name: "several", in: cat(s1, a, s2, b, s1), rest: cat(a, b), merged: []byte("onetwoone"), found: true},
		{name: "side by side", in: cat(a, s1, s2, b), rest: cat(a, b), merged: []byte("onetwo"), found: true},
		{name: "empty state", in: cat(a, str(stateField, "")), rest: a, found: true},
		{name: "varint", in: cat(a, varint(stateField, 1), b), rest: cat(a, b)},
		{name: "group", in: cat(a, group(stateField, s1, group(9)), b), rest: cat(a, b)},
		{name: "within another", in: cat(str(3, string(s1)), group(4, s1)), rest: cat(str(3, string(s1)), group(4, s1))},
		{name: "tag spelled long", in: cat([]byte{0x80 | stateField<<3 | 2, 0x80, 0}, []byte("\x01x"), a), rest: a, merged: []byte("x"), found: true},
		{name: "cut short", in: s1[:3], err: ErrMalformed},
		{name: "end without group", in: []byte{stateField<<3 | 4}, err: ErrMalformed},
		{name: "field 0", in: varint(0, 1), err: ErrMalformed},
		{name: "field over the limit", in: protowire.AppendVarint(nil, 1<<32), err: ErrMalformed},
		{name: "malformed after it", in: cat(s1, []byte{0xff}), err: ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := bytes.Clone(tc.in)
			rest, merged, found, err := Cut(in, stateField)
			if !bytes.Equal(rest, tc.rest) || !bytes.Equal(merged, tc.merged) || found != tc.found || !errors.Is(err, tc.err) {
				t.Errorf("got %x, %q, %v, %v; want %x, %q, %v, %v", rest, merged, found, err, tc.rest, tc.merged, tc.found, tc.err)
			}
			if !bytes.Equal(in, tc.in) {
				t.Errorf("the input was changed to %x", in)
			}
		})
	}
}

func TestCutCopiesOnlyWhatItMust(t *testing.T) {
	long := str(1, string(make([]byte, 1000)))
	for _, tc := range []struct {
		name   string
		in     []byte
		allocs float64
	}{
		{"none", long, 0},
		{"last", cat(long, str(stateField, "s")), 0},
		{"first", cat(str(stateField, "s"), long), 0},
		{"between", cat(long, str(stateField, "s"), long), 1},
		{"many between", cat(long, str(stateField, ""), long, str(stateField, "s"), long, str(stateField, ""), long), 1},
	} {
		if got := testing.AllocsPerRun(100, func() { _, _, _, _ = Cut(tc.in, stateField) }); got > tc.allocs {
			t.Errorf("%s: %v allocations, want %v", tc.name, got, tc.allocs)
		}
	}
}

// TestResultsDoNotOverlap: what is appended to the rest or to the merged state must not show in the other.
func TestResultsDoNotOverlap(t *testing.T) {
	in := cat(str(1, "a"), str(stateField, "one"), str(2, "b"))
	for _, n := range []int{len(str(1, "a")) + len(str(stateField, "one")), len(in)} {
		rest, merged, _, err := Cut(bytes.Clone(in[:n]), stateField)
		if err != nil {
			t.Fatal(err)
		}
		wantRest := bytes.Clone(rest)
		_ = append(rest, "xxxxxxxxxx"...)
		if string(merged) != "one" {
			t.Errorf("an append to the rest made the merged state %q", merged)
		}
		_ = append(merged, "xxxxxxxxxx"...)
		if !bytes.Equal(rest, wantRest) {
			t.Errorf("an append to the merged state made the rest %q", rest)
		}
	}
}

func FuzzCut(f *testing.F) {
	md := descriptor(f)
	state := md.Fields().ByNumber(stateField)
	for _, seed := range [][]byte{
		cat(str(1, "a"), str(stateField, string(str(1, "x"))), varint(2, 1), str(stateField, string(str(6, "y")))),
		cat(varint(stateField, 3), group(stateField, varint(1, 1)), group(4, varint(1, 2))),
		cat(str(3, string(str(stateField, ""))), str(9, "unknown"), str(stateField, string(str(3, string(str(1, "z")))))),
		cat(str(2, "\x01\x02"), varint(2, 3), str(6, "m")),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		given := bytes.Clone(in)
		rest, merged, found, err := Cut(in, stateField)
		if !bytes.Equal(in, given) {
			t.Fatal("the input was changed")
		}
		whole := dynamicpb.NewMessage(md)
		wholeErr := proto.Unmarshal(in, whole)
		if err != nil {
			if wholeErr == nil {
				t.Fatalf("refused what protobuf takes: %v", err)
			}
			return
		}
		if again, _, more, err := Cut(rest, stateField); err != nil || more || !bytes.Equal(again, rest) {
			t.Fatalf("the rest %x can be cut again: %x, %v", rest, again, err)
		}
		if len(rest)+len(merged) > len(in) {
			t.Fatalf("%d bytes became %d and %d", len(in), len(rest), len(merged))
		}
		if wholeErr != nil {
			return
		}
		if found != whole.Has(state) {
			t.Fatalf("found is %v, protobuf says %v", found, !found)
		}
		if found {
			got := dynamicpb.NewMessage(md)
			if err := proto.Unmarshal(merged, got); err != nil || !proto.Equal(got, whole.Get(state).Message().Interface()) {
				t.Fatalf("merged is %v (%v), want %v", got, err, whole.Get(state))
			}
		}
		// With the state set again the message is what it was.
		set := dynamicpb.NewMessage(md)
		back := bytes.Clone(rest)
		if found {
			back = Append(back, stateField, merged)
		}
		want := whole
		want.SetUnknown(without(want.GetUnknown(), stateField))
		if err := proto.Unmarshal(back, set); err != nil || !proto.Equal(set, want) {
			t.Fatalf("put together again it is %v (%v), want %v", set, err, want)
		}
		want.Clear(state)
		got := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(rest, got); err != nil || !proto.Equal(got, want) {
			t.Fatalf("the rest is %v (%v), want %v", got, err, want)
		}
	})
}

// without is unknown fields without those of one number.
func without(b []byte, num protowire.Number) (out []byte) {
	for len(b) > 0 {
		got, _, n := protowire.ConsumeField(b)
		if got != num {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}
