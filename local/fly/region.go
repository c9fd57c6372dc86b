package fly

import (
	"slices"
	"strings"
)

// regionsOf are the regions behind an alias, the preferred one first; nil: it is none.
func regionsOf(alias string) []string {
	switch alias {
	case "eu":
		return []string{"fra", "ams", "arn", "cdg", "lhr"}
	case "us":
		return []string{"iad", "dfw", "ewr", "lax", "ord", "sjc"}
	case "na":
		return []string{"iad", "dfw", "ewr", "lax", "ord", "sjc", "yyz"}
	case "sa":
		return []string{"gru"}
	case "apac":
		return []string{"sin", "bom", "nrt", "syd"}
	}
	return nil
}

// place picks the region of a new machine from a list of codes and aliases in order of preference.
func (s *Server) place(asked string) string {
	first, _, _ := strings.Cut(asked, ",")
	if first == "" || first == "any" {
		return s.cfg.Region
	}
	if codes := regionsOf(first); codes != nil {
		return codes[0]
	}
	return first
}

// admits reports whether a list of codes and aliases has the region in it.
func admits(asked, region string) bool {
	for item := range strings.SplitSeq(asked, ",") {
		if item == "" || item == "any" || item == region || slices.Contains(regionsOf(item), region) {
			return true
		}
	}
	return false
}
