// Package strong serves strong entities: linearizable, one command at a time, kept in etcd by the slot's owner.
//
// The engine hands it Get, Begin, Commit and Abort. It decides who owns the slot, forwards to that store (once: a forwarded
// call is never forwarded again), and at the owner gives out turns. A turn begins with the entity's state and a token, and ends
// by commit, abort, its deadline, or the loss of the connections that began it; a commit without a turn is refused. The queue
// for a turn is bounded and first come, first served. Begin is idempotent: who asks with the request id that has the turn
// joins it, and who asks with one that is stored with the entity learns that it was applied.
//
// Why reads are linearizable. A copy in memory belongs to one claim of the slot (its epoch). It is served only while the
// Committer says, after the read arrived, that this claim is still held: then nobody else can have committed. What is
// loaded from etcd instead is installed unless the copy is newer, so a later read of memory is never older; and it is given
// out only where the slot was still ours after the load, because the true owner's memory may lag behind etcd by a commit
// that it has not answered yet. After a commit of unknown outcome the copy is dropped: the next use loads. Should that
// commit arrive even later, nobody has seen it, and the next commit's guard finds it.
//
// Why writes are safe: each is guarded in etcd by the slot's epoch and by the revision of the state that its command was given.
//
// All state is under one mutex, held for moments only and never over a call to etcd or to another store.
package strong
