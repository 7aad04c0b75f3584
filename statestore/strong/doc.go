// Package strong serves strong entities: linearizable, one command at a time, kept in etcd by the slot's owner.
//
// The engine hands it Get, Begin, Commit and Abort, and Settle of other stores. It decides who owns the slot, forwards to
// that store (once: a forwarded call is never forwarded again), and at the owner gives out turns. A turn begins with the
// entity's state and a token, and ends by commit, abort, its deadline, or the loss of the connections that began it; a commit
// without a turn is refused. The queue for a turn is bounded and first come, first served. Begin is idempotent: who asks with
// the request id that has the turn joins it, and who asks with one that is stored with the entity learns that it was applied.
// An owner that can't be reached, or that can't reach etcd, is waited for within the call's time: it comes back, or its lease
// ends and the slot is claimed anew.
//
// What an entity is made of, and what operations, request ids and time make of it, is in statestore/strong/entity; here is
// when that may be read and written.
//
// # Writes
//
// Each is one transaction, guarded by the slot's epoch (the create revision of its key in etcd) and by the revision of the
// head that its command was given. So it is safe under any timing: of all that is sent at one revision, one is carried out.
// A guard that failed proves that nothing of the transaction can be carried out any more; whether an earlier attempt was, the
// request id tells, which is written with the state.
//
// # Reads
//
// A copy in memory belongs to one claim of the slot (its epoch). It is served only while the Committer says, after the read
// arrived, that this claim is still held: then nobody can have changed the entity but who has a turn of this store. Those are
//   - commits that this store waits for. The read comes before them: nobody was told of them, and nobody is before the copy
//     is renewed;
//   - transactions that nobody here waits for any more, because their time was up, and those that another store sends for a
//     command on several entities. They are guarded by a revision, and while the copy has that revision it is not served:
//     whoever reads it reads etcd (active.open). The copy is served again when it has another revision, since the guard has
//     failed then, when the other store says that it sent nothing, or after openFor, when nothing can be under way.
//
// What is loaded from etcd is installed unless something newer was seen, so that memory never goes back; and it is given out
// only where the slot was still ours after the load, because the true owner's memory may lag behind etcd by a commit that it
// has not answered yet. For the same reason, a command that is found to have been applied, by its id in etcd, is acknowledged
// only when the slot's owner shows it (Commands.shown): the owner may be carrying out that very command, sent again.
//
// # Several entities
//
// The store that got the command coordinates. It takes the turns in the order of the keys' bytes, so nobody waits in a
// circle: its own ones, and from other owners as parts, with the head, its revision and the slot's epoch. It computes all new
// heads and sends one transaction with the guards of all entities, those too that the command only looked at: so what it
// decided by them is true at the commit. A command that changes nothing has no guards, nor has one that refuses its caller:
// therefore Begin makes sure, after the last turn was taken, that all states are still there; a slot may have moved, or a
// transaction that was given up have come through.
//
// That the entities change at once is seen by all, since from before the transaction is sent until the new revision is known
// their owners read etcd. So an owner need not hear of the end for anybody's sake but that of the turn: Settle is told aside
// and may be lost.
//
// Several entities are read as one by reading each twice: revisions only grow, but for heads that are removed long after
// their deletion, so where the second reading finds those of the first, all were there at the moment between.
//
// # Time
//
// A TTL ends by a committed deletion only, and whoever finds one over commits that first. So clocks decide when an entity
// goes, never whether two readers agree on it. What was deleted leaves its head, with the request ids, for entity's keepIDs,
// which is longer than any transaction can be under way; with it goes what guards a revision 0 against those that were
// given up.
//
// All state is under one mutex, held for moments only and never over a call to etcd or to another store.
//
// The package is larger than most: ownership, turns, reads and the two forms of commit share one state under that mutex.
package strong
