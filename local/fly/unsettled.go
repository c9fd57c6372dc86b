package fly

import "time"

// Unsettled are points on which nobody outside of Fly knows what Fly does. The zero value is what clients in the
// field live with; a client that is to be safe is tried with each of the others.
type Unsettled struct {
	WaitNeedsVersion   bool          // waiting for stopped without a version is answered with 400
	LeasedStopHangs    bool          // a stop of a machine that another has leased waits for the lease's end, in place of 409
	RetryAfter         bool          // 429 comes with Retry-After
	VolumeNameIs400    bool          // a bad name of a volume is answered with 400, in place of 422
	LeaseTTL           time.Duration // of a lease that was asked for without one; 0: 13 s
	ExecTimeout        time.Duration // longest of a command; 0: 60 s
	ExecOutput         int           // bytes of each of a command's outputs that are answered; 0: all
	MetadataValue      int           // longest value in bytes; 0: any
	StopSignal         string        // of a stop that names none; "": SIGINT
	SuspendMemory      int           // most MB of a machine that may be suspended; 0: 2048
	VolumeTakesRegions bool          // a volume's region may be a list or an alias, as a machine's may
}

func (u Unsettled) withDefaults() Unsettled {
	if u.LeaseTTL == 0 {
		u.LeaseTTL = 13 * time.Second
	}
	if u.ExecTimeout == 0 {
		u.ExecTimeout = time.Minute
	}
	if u.StopSignal == "" {
		u.StopSignal = "SIGINT"
	}
	if u.SuspendMemory == 0 {
		u.SuspendMemory = 2048
	}
	return u
}
