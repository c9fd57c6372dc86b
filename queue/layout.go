package queue

// The layout in Redis. Every key begins with the prefix and one hash tag, "fb:{queue}:", so that a cluster
// keeps all of them in one slot and scripts may derive keys from what they read.
//
//	meta          hash    ver; skew in ms, set by tests only
//	ready         zset    key → start tag: its head may start
//	lease         zset    key → expiry in ms: owned by a replica
//	orphan        zset    key → since ms: claimed, and its owner is gone: to be attached to first
//	delay         zset    key → due ms: its head was put off
//	park:u:USER   zset    key → start tag: its head would exceed a limit of its user
//	park:g:GROUP  zset    the same for its group
//	parks         set     names of the park:… that are not empty
//	run           hash    all, u:USER, g:GROUP → jobs claimed; no field is 0
//	count         hash    all, u:USER, g:GROUP → jobs in all lists; no field is 0
//	fair          hash    '' → tag of the job started last; USER → tag given last
//	s:KEY         hash    in (the index that holds the key), run (id), fence, own, stage, att, at, cancel,
//	                      tries, takes, last (fence of the claim finished last)
//	q:KEY         list    elements order␟id␟user␟group␟revision␟payload (␟ = byte 31); the head stays until finished. id is a byte
//	                      32 + n, and what follows the n bytes up to KEY's last colon, if it begins with them; order is = if it is
//	                      the rest of the id
//	d:ID          string  1; expires after 3 days: what was seen
//	own:OWNER     set     keys leased by that replica
//	wake          list    doorbell tokens, at most 4
//	ctl:OWNER     list    key␟id of jobs that were cancelled, and "" to look up
//	never         -       never there: every script declares it (Queue.run)
//
// What holds between any two scripts, and is checked after every operation by the model test:
//
//   - a key with jobs is in exactly one of ready, lease, orphan, delay, park:…, and "in" names it; one without is in none
//   - it is in lease or orphan ⇔ run is set ⇔ run is the head's id ⇔ the job counts once in run
//   - fences of a key only rise, also when its hash was lost: a fence is at least the clock
//   - a write under another fence or id changes nothing and says STALE, or ALREADY for the claim finished last
//   - what was never claimed and has an order is behind nothing of a later one that was never claimed

// version of the layout. A replica refuses a higher one.
const version = 1
