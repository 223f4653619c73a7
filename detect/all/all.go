// Package all lists the detectors.
package all

import (
	"noroshi/detect"
	"noroshi/detect/botnet"
	"noroshi/detect/flood"
	"noroshi/detect/iotbot"
	"noroshi/detect/sampling"
)

// Specs are all detectors, in the order in which they see a batch.
var Specs = []*detect.Spec{
	&flood.Spec,
	&iotbot.Spec,
	&botnet.Spec,
	&sampling.Spec,
}
