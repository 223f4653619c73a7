package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// panel is one curve or several over time, under one another in a picture.
type panel struct {
	title  string
	unit   string
	curves []curve
}

type curve struct {
	name   string
	values []float64
}

var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7"} // told apart by the colour-blind (Okabe and Ito)

// plot writes panels over the same minutes as SVG.
func plot(w io.Writer, title string, minutes []float64, panels []panel) error {
	const width, height, left, right, top = 860, 150, 70, 20, 40
	var b strings.Builder
	total := top + len(panels)*(height+40) + 20
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, total)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="22" font-size="15">%s</text>`+"\n", width, total, left, title)
	last := minutes[len(minutes)-1]
	x := func(m float64) float64 { return left + m/last*(width-left-right) }
	for i, p := range panels {
		y0 := float64(top + i*(height+40) + height)
		most := 0.0
		for _, c := range p.curves {
			most = max(most, slices.Max(c.values))
		}
		most = niceAbove(most)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f">%s</text>`+"\n", left, y0-height-6+14, p.title)
		for k := range 5 {
			v := most * float64(k) / 4
			y := y0 - float64(k)/4*(height-20)
			fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
				left, width-right, y, y, left-6, y+4, number(v)+p.unit)
		}
		for m := 0.0; m <= last+0.01; m += niceAbove(last) / 10 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x(m), y0+16, number(m)+" min")
		}
		for k, c := range p.curves {
			var points []string
			for j, v := range c.values {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(minutes[j]), y0-v/most*(height-20)))
			}
			fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`+"\n", colours[k], strings.Join(points, " "))
			fmt.Fprintf(&b, `<text x="%d" y="%.0f" fill="%s">%s</text>`+"\n", left+230+k*150, y0-height-6+14, colours[k], c.name)
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// niceAbove returns the least 1, 2, 2.5, 4, 5 or 8 times a power of ten that isn't below v.
func niceAbove(v float64) float64 {
	if v <= 0 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 4, 5, 8, 10} {
		if m*p >= v {
			return m * p
		}
	}
	return 10 * p
}

func number(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0") }
