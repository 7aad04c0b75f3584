package crdt

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// bcounter is the bounded counter (Balegas et al. 2015, "Extending Eventually Consistent Cloud Databases for Enforcing
// Numeric Invariants"), as a DotFun: each replica has a row of what it added, took off, gave to others and took over from its
// former selves. Its rights are what it added and was given, less what it took off and gave away; who takes no more off
// than it has rights to can't bring the value below the floor, whatever others do meanwhile. The value starts at the floor:
// what is between 0 and a floor below it belongs to nobody.
//
// Only its replica writes a row, and each row replaces the one before, so rights are neither lost nor doubled by what is
// lost, doubled and reordered on the way. Rights of an identity whose disk is lost are lost: it may have used more of them
// than anybody knows. An heir on the same disk takes them over; the old rows stay.
//
// Delete is refused: it would have to take the rights of replicas that can't be asked.
type row struct {
	added, taken uint64
	given        []amount // by replica
	inherited    []amount // by replica
}

type amount struct{ replica, n uint64 }

// RightsError says that this replica may not take as much off a bounded counter. It is an ErrRights.
type RightsError struct {
	// Need is what the operation takes, Have what this replica may take, Total what all replicas may that it knows of.
	Need, Have, Total uint64
}

func (e *RightsError) Error() string {
	if e.Total < e.Need {
		return fmt.Sprintf("%v: %d to be taken off, at most %d before the counter is at its floor: take off less", ErrRights, e.Need, e.Total)
	}
	return fmt.Sprintf("%v: %d to be taken off, %d may be here and %d at all replicas: get rights from another one, or try there",
		ErrRights, e.Need, e.Have, e.Total)
}

func (e *RightsError) Unwrap() error { return ErrRights }

func (w row) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, w.added)
	dst = binary.AppendUvarint(dst, w.taken)
	dst = binary.AppendUvarint(dst, uint64(len(w.given)))
	for _, list := range [][]amount{w.given, w.inherited} {
		for _, a := range list {
			dst = binary.BigEndian.AppendUint64(dst, a.replica)
			dst = binary.AppendUvarint(dst, a.n)
		}
	}
	return dst
}

func readRow(payload string) (w row) {
	w.added, payload = cutUint(payload)
	w.taken, payload = cutUint(payload)
	given, payload := cutUint(payload)
	for payload != "" {
		var a amount
		a.replica, payload = cutReplica(payload)
		a.n, payload = cutUint(payload)
		if uint64(len(w.given)) < given {
			w.given = append(w.given, a)
		} else {
			w.inherited = append(w.inherited, a)
		}
	}
	return w
}

func checkRow(r *reader) {
	r.uint()
	r.uint()
	given := r.count(9)
	last := uint64(0)
	for i := 0; r.err == nil && (len(r.b) > 0 || i < given); i++ {
		if i == given {
			last = 0
		}
		replica := r.replica()
		if replica <= last {
			r.fail("replicas of a row out of order")
		}
		if n := r.uint(); r.err == nil && n == 0 {
			r.fail("0 rights given")
		}
		last = replica
	}
}

// book is the newest row of each replica, by replica.
type book []bookRow

type bookRow struct {
	dot Dot
	row
}

func readBook(live dots) book {
	var b book
	for live != "" {
		d, payload, rest := live.next()
		r := bookRow{d, readRow(payload)}
		if n := len(b); n > 0 && b[n-1].dot.Replica == d.Replica {
			b[n-1] = r // The later one: an older one is live only until what replaced it arrives, too.
		} else {
			b = append(b, r)
		}
		live = rest
	}
	return b
}

func amountOf(list []amount, replica uint64) uint64 {
	for _, a := range list {
		if a.replica == replica {
			return a.n
		}
	}
	return 0
}

func (b book) row(replica uint64) row {
	for _, r := range b {
		if r.dot.Replica == replica {
			return r.row
		}
	}
	return row{}
}

// rights of a replica; 0 also where rows that are still to come leave less than nothing.
func (b book) rights(replica uint64) uint64 {
	var plus, minus total
	own := b.row(replica)
	plus.add(own.added, false)
	minus.add(own.taken, false)
	for _, a := range own.given {
		minus.add(a.n, false)
	}
	for _, a := range own.inherited {
		plus.add(a.n, false)
	}
	for _, r := range b {
		plus.add(amountOf(r.given, replica), false)
		minus.add(amountOf(r.inherited, replica), false)
	}
	rights := plus.minus(minus)
	if int64(rights.hi) < 0 {
		return 0
	}
	return rights.unsigned()
}

// replicas lists all that may have rights.
func (b book) replicas() []uint64 {
	var out []uint64
	for _, r := range b {
		out = append(out, r.dot.Replica)
		for _, a := range r.given {
			out = append(out, a.replica)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sum is all that was added, and all that was taken off.
func (b book) sum() (added, taken total) {
	for _, r := range b {
		added.add(r.added, false)
		taken.add(r.taken, false)
	}
	return added, taken
}

func boundedValue(live dots, v View) *holdfastv1.BoundedValue {
	b := readBook(live)
	// Below the floor is what is not: rows that were given the rights to it are still to come.
	return &holdfastv1.BoundedValue{Value: max(b.value(v.Floor).signed(), v.Floor), Available: b.rights(v.Replica)}
}

func (b book) value(floor int64) total {
	value, taken := b.sum()
	value.add(uint64(floor), true)
	return value.minus(taken)
}

func (s *shape) applyBounded(c *change, live store, op *holdfastv1.Operation) (store, error) {
	if _, ok := op.GetOperation().(*holdfastv1.Operation_Delete); ok {
		return store{}, fmt.Errorf("%w: a bcounter can't be deleted, other replicas may hold rights to it: take off what is left", ErrOperation)
	}
	o, ok := op.GetOperation().(*holdfastv1.Operation_Change)
	if !ok {
		return store{}, s.unfit(op, "change")
	}
	by := o.Change.GetBy()
	if by == 0 && !live.empty() {
		return store{}, nil
	}
	b := readBook(live.dots)
	mine := b.row(c.Replica)
	if by >= 0 {
		value := b.value(c.Floor)
		value.add(uint64(by), true)
		if !value.fits() || mine.added > math.MaxUint64-uint64(by) {
			return store{}, fmt.Errorf("%w: the counter is at %d, a change by %d leaves the range of 64 bits: change it by less", ErrOverflow, b.value(c.Floor).signed(), by)
		}
		mine.added += uint64(by)
		return b.write(c, mine), nil
	}
	need := -uint64(by)
	mine, err := b.spend(c, mine, need)
	if err != nil {
		return store{}, err
	}
	if mine.taken > math.MaxUint64-need {
		return store{}, fmt.Errorf("%w: this replica took %d off in all, %d more is over 2^64-1: change it at another node", ErrOverflow, mine.taken, need)
	}
	mine.taken += need
	return b.write(c, mine), nil
}

// spend is the row with rights to need, taken over from former selves where they are not its own.
func (b book) spend(c *change, mine row, need uint64) (row, error) {
	have := b.rights(c.Replica)
	mine.inherited = slices.Clone(mine.inherited)
	var all total
	for _, replica := range b.replicas() {
		n := b.rights(replica)
		all.add(n, false)
		if replica == c.Replica || n == 0 || have >= need || c.Heir == nil || !c.Heir(replica) || n > math.MaxUint64-have {
			continue
		}
		have += n
		mine.inherited = addAmount(mine.inherited, replica, n)
	}
	if have < need {
		return row{}, &RightsError{Need: need, Have: have, Total: all.unsigned()}
	}
	return mine, nil
}

// write is the delta of a row.
func (b book) write(c *change, mine row) store {
	for _, r := range b {
		if r.dot.Replica == c.Replica {
			c.seen = append(c.seen, r.dot)
		}
	}
	return store{dots: one(c.dot(), mine.append(nil))}
}

func addAmount(list []amount, replica, n uint64) []amount {
	for i := range list {
		if list[i].replica == replica {
			list[i].n += n
			return list
		}
		if list[i].replica > replica {
			return slices.Insert(list, i, amount{replica, n})
		}
	}
	return append(list, amount{replica, n})
}

// Rights is how much a replica may take off a bounded counter without asking; 0 for other shapes.
func (s *State) Rights(replica uint64) uint64 {
	if s.shape.kind != configv1.Model_MODEL_BCOUNTER {
		return 0
	}
	return readBook(s.live.dots).rights(replica)
}

// Transfer computes the change that gives rights of m.Replica to another replica. The error is a RightsError where m.Replica
// has not as many.
func (s *State) Transfer(to, amount uint64, m Mutator) (State, error) {
	if m.Replica == 0 || m.Seq == 0 {
		panic("crdt: a change without a replica or a sequence")
	}
	if s.shape.kind != configv1.Model_MODEL_BCOUNTER || to == 0 {
		return State{}, fmt.Errorf("%w: rights of a %s to replica %d: only a bcounter has rights, and a replica is not 0", ErrOperation, s.shape, to)
	}
	c := &change{Mutator: m}
	if amount == 0 || to == m.Replica {
		return s.delta(c, store{}), nil
	}
	b := readBook(s.live.dots)
	mine, err := b.spend(c, b.row(m.Replica), amount)
	if err != nil {
		return State{}, err
	}
	if amountOf(mine.given, to) > math.MaxUint64-amount {
		return State{}, fmt.Errorf("%w: replica %d was given %d rights in all, %d more is over 2^64-1", ErrOverflow, to, amountOf(mine.given, to), amount)
	}
	mine.given = addAmount(slices.Clone(mine.given), to, amount)
	live := b.write(c, mine)
	if c.err != nil {
		return State{}, c.err
	}
	return s.delta(c, live), nil
}
