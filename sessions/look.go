//go:build !nofence && !nofence_look

package sessions

// looks says that what may stand in the thread already is looked for before it is posted.
const looks = true
