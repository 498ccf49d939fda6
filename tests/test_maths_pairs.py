"""Pairs of formulas: what is the same answer and what is not."""

import pytest

from ioa_jax.evaluation import (
  maths,
  maths_spelling,
  maths_structure,
  maths_units,
)


@pytest.fixture(scope='module')
def checker():
  pytest.importorskip('math_verify', reason='needs the extra "eval"')
  with maths.Checker() as checker:
    yield checker


# Gold, then answer.
EQUAL = r"""
5\text{ cm} ~~ 5 cm
5\text{ cm} ~~ 5cm
5\text{ cm} ~~ 5
5 ~~ 5\,m
5 ~~ 5\,\text{m}
5 ~~ 5 km
3\pi\text{ cm}^2 ~~ 3\pi
3\pi\text{ cm}^2 ~~ 3\pi \text{ square centimeters}
9\sqrt{3}\text{ cm}^2 ~~ 9\sqrt3
\frac{9}{2}\text{ m} ~~ 4.5\text{ meters}
5\text{ m/s} ~~ 5\frac{\text{m}}{\text{s}}
5\text{ m/s} ~~ 5 \frac{m}{s}
60\text{ mph} ~~ 60\text{ miles per hour}
60\text{ mph} ~~ 60\text{ mi/hr}
60\text{ km/h} ~~ 60\text{ kilometers per hour}
60\text{ km/h} ~~ 60\text{ kph}
9.8\text{ m/s}^2 ~~ 9.8\text{ meters per second squared}
9.8\text{ m/s}^2 ~~ 9.8 m/s^2
5\text{ kg}\cdot\text{m} ~~ 5\text{ kg m}
5\text{ dollars} ~~ \$5
\$5 ~~ 5
\$5 ~~ \$5.00
\$5 ~~ 5\text{ USD}
\$1{,}000 ~~ 1000
\$1,000 ~~ \$1000
-\$5 ~~ -5
5\text{ hours} ~~ 5\text{ h}
5\text{ hours} ~~ 5\text{ hr}
12\text{ apples} ~~ 12
12 ~~ 12\text{ students}
12\text{ square feet} ~~ 12\text{ ft}^2
12\text{ square feet} ~~ 12\text{ sq ft}
12\text{ cubic feet} ~~ 12\text{ ft}^3
60 ~~ 5\text{ dozen}
5000000 ~~ 5\text{ million}
5,000,000 ~~ 5 million
12:30 ~~ 12:30
2:1 ~~ 2
6:4 ~~ 3:2
3:4 ~~ 0.75
1234 ~~ 1 234
x+y=5 ~~ y=5-x
x+y=5 ~~ x=5-y
2x+4y-3=0 ~~ y=-\frac{1}{2}x+\frac34
x=5 ~~ 5=x
5 ~~ x = 10/2 = 5
5 ~~ x=5\text{ cm}
58500 ~~ x=58,500
58500 ~~ x=58500
58500 ~~ x = \$58,500
58,500 ~~ 58500
x=5,y=6 ~~ (5,6)
(5,6) ~~ x=5, y=6
(5,6) ~~ y=6, x=5
12.5\% ~~ 12.5
12.5 ~~ 12.5\%
12.5\% ~~ 0.125
12.5\% ~~ \frac{1}{8}
12.5\% ~~ 12.5 \text{ percent}
12.5\% ~~ 12.5\text{ per cent}
50\% ~~ 0.5
0.5 ~~ 50\%
42 ~~ = 42
42 ~~ \large 42
42 ~~ {\large 42}
42 ~~ \Large{42}
42 ~~ \displaystyle{42}
42 ~~ \$42
42 ~~ 42^\circ
90 ~~ 90°
90^\circ ~~ 90°
90^\circ ~~ 90 degrees
90^\circ ~~ 90\text{ degrees}
90^\circ ~~ 90^{\circ}
30^\circ\text{C} ~~ 30^\circ
30^\circ\text{C} ~~ 30\text{ degrees Celsius}
30^\circ\text{C} ~~ 30°C
2\sqrt{2} ~~ 2√2
2\sqrt{2} ~~ √8
2\sqrt{2} ~~ 2√(2)
\sqrt{12} ~~ √12
\frac{3}{4} ~~ ¾
\frac{3}{4} ~~ 3⁄4
1\frac{3}{4} ~~ 1¾
1\frac{3}{4} ~~ 7/4
1\frac34 ~~ 1.75
1\frac34 ~~ 1 \frac34
\infty ~~ ∞
\infty ~~ +\infty
-\infty ~~ -∞
(-\infty,3) ~~ (-∞, 3)
(-\infty,3) ~~ x<3
(-\infty,3] ~~ x ≤ 3
[0,\infty) ~~ x\ge 0
[0,\infty) ~~ x \geq 0
[0,\infty) ~~ 0 \le x
[0,\infty) ~~ [0,+\infty)
[-2,7] ~~ x \in [-2,7]
x \in [-2,7] ~~ -2 \le x \le 7
x \in [-2,7] ~~ [-2,7]
[-2,7] ~~ -2\leq x\leq 7
[-2,7] ~~ \{x : -2 \le x \le 7\}
[-2,7] ~~ \{x \mid -2 \le x \le 7\}
[-2,7] ~~ -2 \le y \le 7
(-\infty,-1)\cup(1,\infty) ~~ x<-1 \text{ or } x>1
(-\infty,-1)\cup(1,\infty) ~~ x>1 \text{ or } x<-1
(-\infty,3)\cup(3,\infty) ~~ x\ne 3
x\ne 3 ~~ x \neq 3
(1,3) ~~ x>1 \text{ and } x<3
\mathbb{R} ~~ (-\infty,\infty)
(-\infty,\infty) ~~ \text{all real numbers}
6.02\times 10^{23} ~~ 6.02e23
6.02\times 10^{23} ~~ 6.02E23
6.02\times 10^{23} ~~ 6.02e+23
6.02\times 10^{23} ~~ 6.02 x 10^23
0.003 ~~ 3e-3
7 ~~ **7**
7 ~~ \textbf{7}
7 ~~ \mathbf{7}
7 ~~ \underline{7}
7 ~~ `7`
\text{yes} ~~ \textbf{Yes}
\text{yes} ~~ yes
\emptyset ~~ \varnothing
\emptyset ~~ \{\}
\emptyset ~~ ∅
\emptyset ~~ \{ \}
0.\overline{3} ~~ 1/3
\frac{1}{3} ~~ 0.\overline{3}
\frac{1}{3} ~~ 0.\bar{3}
\frac{1}{3} ~~ 0.333\ldots
0.\overline{142857} ~~ \frac17
1.\overline{3} ~~ \frac43
\frac{1}{3} ~~ 0.33\overline{3}
2.1\overline{6} ~~ \frac{13}{6}
3 ~~ three
3 ~~ \text{three}
three ~~ 3
21 ~~ \text{twenty-one}
21 ~~ twenty one
\text{three} ~~ 3
\frac12 ~~ \text{half}
\frac12 ~~ one half
1,1,2 ~~ 2,1,1
\{1,1,2\} ~~ \{1,2\}
19, 46, \text{ and } 82 ~~ 19, 46 and 82
19, 46, \text{ and } 82 ~~ 82,46,19
n=2, 3, 4 ~~ 2,3,4
D=(0,1) ~~ (0,1)
1 - \frac{1}{e} ~~ 1-e^{-1}
4\sqrt2 ~~ 4\sqrt(2)
-34x-45y+20z-100=0 ~~ 34x+45y-20z+100=0
\tan^2(y)+1 ~~ \sec^2(y)
\frac{x+2}{7} ~~ \frac{x}{7}+\frac{2}{7}
(1,\frac{9}{2}) ~~ (1,4.5)
\frac{1}{12} ~~ 0.0833333333333333
(\begin{pmatrix}1\\2\end{pmatrix}) ~~ \begin{pmatrix}1\\2\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} ~~ \left(\begin{array}{cc}1&2\end{array}\right)
28\% ~~ 28 percent
28\% ~~ 28 pct
28\% ~~ 28 percentage
28\% ~~ 28 \%
m \geq \sqrt{2} ~~ m \in [\sqrt{2}, +\infty)
[\sqrt{2}, +\infty) ~~ m \geq \sqrt{2}
\text{(A)} ~~ A
\text{(A)} ~~ \text{A}
\text{(A)} ~~ (A)
2x+3 ~~ 3+2x
(x+1)(x-1) ~~ x^2-1
\frac{1}{x+1} ~~ (x+1)^{-1}
\sqrt{x^2+1} ~~ (x^2+1)^{1/2}
\sin^2 x ~~ (\sin x)^2
\sin 2x ~~ 2\sin x\cos x
e^{i\pi} ~~ -1
3+4i ~~ 4i+3
\frac{1+i}{2} ~~ 0.5+0.5i
\cos 60^\circ ~~ \frac12
\sin(45^\circ) ~~ \frac{\sqrt{2}}{2}
\log_{10}100 ~~ 2
\ln e ~~ 1
\sqrt[3]{8} ~~ 2
\lfloor 3.7\rfloor ~~ 3
|{-5}| ~~ 5
\binom{6}{2} ~~ 15
6! ~~ 720
5! ~~ 120
2^{10} ~~ 1024
2^10 ~~ 1024
10^{-3} ~~ 0.001
\frac{5}{2} ~~ 2.5
\frac{5}{2} ~~ 2.50
\frac{5}{2} ~~ 5/2
\frac{5}{2} ~~ 5:2
\frac{5}{2} ~~ \frac{10}{4}
1.0 ~~ 1
1e3 ~~ 1000
0.1+0.2 ~~ 0.3
5 ~~ \{5\}
5 ~~ 5+0
5 ~~ 5.
5 ~~ 5,
5 ~~ 5;
5 ~~ \boxed{5}
5 ~~ \text{Answer: }5
5 ~~ \text{answer is }5
5 ~~ Answer: 5
5 ~~ 5 \text{ units}
5 ~~ 5\%
5 ~~ \sqrt{25}
5 ~~ +5
5 ~~ 05
5 ~~ 5.0000
5 ~~ \approx 5
-5 ~~ (-5)
-5 ~~ −5
-\frac12 ~~ \frac{-1}{2}
-\frac12 ~~ -.5
.5 ~~ 0.5
\text{Monday} ~~ Monday
\text{Monday} ~~ monday.
3\text{ p.m.} ~~ 3 PM
1:03 PM ~~ 1:03
1:03\text{ PM} ~~ \text{1:03 PM}
1234_5 ~~ 1234_{\text{five}}
1A_{16} ~~ 1a_{16}
101_2 ~~ 101_{two}
101_2 ~~ 101\text{ (base 2)}
101_2 ~~ 101 base 2
5 ~~ 五
12 ~~ 十二
5 ~~ 5 个
5 ~~ 5米
5 ~~ 答案：5
5 ~~ 答案为5
5 ~~ 答：5
5 ~~ ５
-3 ~~ －3
2\pi ~~ 2π
x^2 ~~ x²
x_1 ~~ x₁
10^{-2} ~~ 10⁻²
x\le 3 ~~ x≤3
x\ne 3 ~~ x≠3
a \cup b ~~ a ∪ b
f(x)=2x ~~ 2x
2x ~~ f(x)=2x
y=2x+3 ~~ 2x-y+3=0
y=2x+3 ~~ y-2x=3
(x-1)^2+y^2=4 ~~ x^2-2x+y^2=3
\frac{\pi}{6}, \frac{5\pi}{6} ~~ \frac{5\pi}{6}, \frac{\pi}{6}
1+\sqrt2,1-\sqrt2 ~~ 1\pm\sqrt2
\frac{1\pm\sqrt5}{2} ~~ \frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}
x=\frac{1\pm\sqrt5}{2} ~~ \frac{1\pm\sqrt5}{2}
(1,2),(3,4) ~~ (3,4),(1,2)
(1,2),(3,4) ~~ \{(1,2),(3,4)\}
(1,2,3) ~~ 1,2,3
(1,2) ~~ \langle 1,2\rangle
(1,2) ~~ x=1,y=2
(x,y)=(1,2) ~~ (1,2)
\{1,2\} ~~ \{x=1,x=2\}
\text{no} ~~ No
\text{True} ~~ True
10\text{ and }20 ~~ 10,20
10\text{ or }20 ~~ 20, 10
100,200 ~~ 100,200
100,200 ~~ 100, 200
100,200 ~~ 200, 100
100200 ~~ 100,200
1,000,000 ~~ 1000000
1,000,000 ~~ 10^6
3\text{ g/cm}^3 ~~ 3\text{ grams per cubic centimeter}
3\text{ g/cm}^3 ~~ 3\,\frac{\text{g}}{\text{cm}^3}
3\text{ people per hour} ~~ 3
2:30 ~~ 2:30\text{ PM}
10:00\text{ a.m.} ~~ 10:00 \text{ AM}
\{2,3\} ~~ 2,3
-1,-1,4 ~~ 4,-1,-1
x=3 ~~ 3
12 ~~ 1\text{ dozen}
24 ~~ 2\text{ dozen eggs}
3 ~~ 3\text{ pairs}
7\text{ million} ~~ 7,000,000
7\text{ million} ~~ 7 \times 10^6
62.5\% ~~ 62.5
62.5 ~~ 62.5\%
62.5\% ~~ \frac{5}{8}
33\frac{1}{3}\% ~~ \frac13
100\% ~~ 1
7 ~~ = 7
7 ~~ \Large 7
7 ~~ \textit{7}
7 ~~ \color{red}{7}
7 ~~ \underline{\mathbf{7}}
7 ~~ \mathbf{7}.
7 ~~ 7\ \text{(see above)}
7 ~~ \text{7} \text{ cm}
7 ~~ 7\hspace{1mm}\text{cm}
\sqrt{2} ~~ √2
\sqrt{2}/2 ~~ √2/2
\sqrt[3]{2} ~~ ∛2
60^\circ ~~ 60˚
60^\circ ~~ 60º
\frac{2}{3} ~~ ⅔
\frac18 ~~ ⅛
2\frac12 ~~ 2½
(-\infty, \infty) ~~ (-∞,∞)
[1,\infty) ~~ x≥1
[1,\infty) ~~ [1,∞)
(-3,5] ~~ -3<x≤5
x>2 ~~ 2<x
x\geq 2 ~~ [2,\infty)
(-\infty,0)\cup(0,\infty) ~~ x \neq 0
(-\infty,0)\cup(0,\infty) ~~ \mathbb{R}\setminus\{0\}
\{1\}\cup[2,3] ~~ [2,3]\cup\{1\}
1.2e-5 ~~ 0.000012
1.2\times10^{-5} ~~ 1.2e-5
3.0\times 10^8 ~~ 3e8
58,500 ~~ x=58500
x=1,234,567 ~~ 1234567
0.\overline{36} ~~ \frac{4}{11}
0.\overline{36} ~~ 0.363636...
.\overline{3} ~~ \frac13
\frac{4}{11} ~~ 0.\overline{36}
\overline{AB} ~~ \overline{AB}
\text{two} ~~ 2
10 ~~ ten
10 ~~ Ten
0 ~~ \text{zero}
1 ~~ \text{one}
11 ~~ \text{eleven}
\frac{1}{2} ~~ \text{one half}
x^2+3x+2 ~~ (x+1)(x+2)
A ~~ \text{A}
\text{Alice} ~~ \text{alice}
\begin{pmatrix}1\\0\end{pmatrix} ~~ \begin{bmatrix}1\\0\end{bmatrix}
\begin{pmatrix}1.5\\0\end{pmatrix} ~~ \begin{pmatrix}\frac32\\0\end{pmatrix}
16\pi ~~ 50.26548245743669
\frac{22}{7} ~~ 3.142857
\sqrt2 ~~ 1.41421356
(n+1)! ~~ (n+1)n!
\binom{n}{2} ~~ \frac{n(n-1)}{2}
3+2i ~~ 2i+3
-i ~~ \frac{1}{i}
\frac{3+4i}{5} ~~ \frac35+\frac45 i
|x-3| ~~ |3-x|
\ln(x^2) ~~ 2\ln x
\tan x ~~ \frac{\sin x}{\cos x}
e ~~ 2.71828
y = 2x ~~ y=2x+0
y=2x+3 ~~ y-3=2x
f(x) = x^2 ~~ x^2
(2,3) ~~ (2, 3)
(2,3) ~~ \left(2,\,3\right)
(2,3) ~~ (2;3)
(2,3) ~~ 2,3
(0,0),(1,1) ~~ (1,1) and (0,0)
\$5.50 ~~ 5.5
\$5.50 ~~ \$5.5
\$5.50 ~~ 5.50\text{ USD}
5.50 ~~ £5.50
10111_2 ~~ 10111_{2}
3\ \text{cm} ~~ 3~\text{cm}
\text{Sunday} ~~ \text{sunday}
\text{(B)} ~~ \text{B}
\text{(B)} ~~ \textbf{(B)}
\text{(B)} ~~ \mathbf{B}
\text{A, B} ~~ \text{B, A}
""".strip().splitlines()
DIFFERENT = r"""
5\text{ cm} ~~ 5\,m
5\text{ cm} ~~ 5\,\text{m}
5\text{ cm} ~~ 5\ \mathrm{m}
5\text{ cm} ~~ 5 m
x\text{ cm}^2 ~~ x\text{ cm}^3
\pi\text{ cm}^2 ~~ \pi\text{ cm}^3
3\pi\text{ cm}^2 ~~ 3\pi\text{ cm}^3
3\pi\,\text{cm}^2 ~~ 3\pi\text{ cm}
9\sqrt{3}\text{ cm}^2 ~~ 9\sqrt3\text{ cm}^3
\frac{9}{2}\text{ m} ~~ \frac92\text{ km}
5\text{ m/s} ~~ 5 \text{ m/s}^2
5\text{ m/s} ~~ 5\text{ ms}^{-1}
60\text{ mph} ~~ 60\text{ km per hour}
9.8\text{ m/s}^2 ~~ 9.8 \text{ m/s}
5\text{ N} ~~ 5\text{ J}
\$5 ~~ 5\text{ euros}
\$5 ~~ €5
\$5 ~~ 500\text{ cents}
5\text{ hours} ~~ 5\text{ minutes}
5\text{ hours} ~~ 5\text{ days}
12\text{ apples} ~~ 12\text{ oranges}
12\text{ square feet} ~~ 12\text{ feet}
12\text{ cubic feet} ~~ 12\text{ ft}^2
5 ~~ 5\text{ dozen}
5 ~~ 5 dozen
5 ~~ 5\text{ million}
5 ~~ 5\text{ thousand}
5 ~~ 5\text{ hundred}
3:30 ~~ 6:60
3:30 ~~ 3.5
4:3 ~~ 3:4
3:4 ~~ \frac{4}{3}
1:2:3 ~~ 2:4:6
42 ~~ 4 2
42 ~~ 4\,2
42 ~~ 4{,}2
42 ~~ 4\ 2
123 ~~ 1 23
123 ~~ 12 3
x+y=5 ~~ 5
x+y=5 ~~ x+y=6
5 ~~ x+y=5
5 ~~ 2x=5
5 ~~ x=y=5
5 ~~ x^2=5
25 ~~ x^2=25
5 ~~ |x|=5
5 ~~ x = 10/2 = 6
(5,6) ~~ x=6, y=5
12.5\% ~~ 1.25
50\% ~~ 5
0.5 ~~ 0.5\%
90^\circ ~~ 45^\circ
30^\circ\text{C} ~~ 30^\circ\text{F}
1\frac34 ~~ 1\text{ and }\frac34
\infty ~~ -\infty
(-\infty,3) ~~ x\le 3
[0,\infty) ~~ (0,\infty)
(0,1) ~~ ]0,1[
[-2,7] ~~ -2 < x < 7
(-\infty,-1)\cup(1,\infty) ~~ x<-1, x>1
x\ne 3 ~~ x\ne 4
6.02\times 10^{23} ~~ 6.02e22
\emptyset ~~ \{0\}
0.\overline{3} ~~ 0.33
3 ~~ four
1,1,2 ~~ 1,2,2
1,1,2 ~~ 1,2
\{1,2\} ~~ \{1,2,3\}
1,2,3 ~~ 1,2
1, 2, \ldots, n ~~ 1, 3, 5, \ldots, 2n-1
1:2:3:\ldots ~~ 1:4:9:\ldots
19, 46, \text{ and } 82 ~~ 21, 36, and 82
n=2, 3, 4 ~~ n=1, 2, 3
D = (0, 1) ~~ D = (0, 1.5)
F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1} ~~ F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}
\frac{2^{2005}+1}{3 \cdot 2^{2006}} ~~ \frac{1}{3 \cdot 2^{2006}}
1 - \frac{1}{\mathrm{e}} ~~ 1 + \frac{1}{\mathrm{e}}
\pm 2021 ~~ 2021
\frac{1}{2004!} ~~ \frac{1}{2006!}
12:00 ~~ 1:00
4 ~~ 4\sqrt(2)
3x-y+13=0 ~~ 3x+4y+14=0
\frac{1}{12} ~~ 0.0833
\begin{pmatrix}1\\2\end{pmatrix} ~~ \begin{pmatrix}2\\1\end{pmatrix}
\text{(A)} ~~ B
\text{(A)} ~~ A) 5
x^2+1 ~~ y^2+1
2x+3 ~~ 2x-3
3+4i ~~ 3+4j
i ~~ -i
42! ~~ 42
\frac{5}{2} ~~ 25
\frac10 ~~ \infty
5 ~~ NaN
5 ~~ nan
5 ~~ \text{none}
5 ~~ \text{no solution}
5 ~~ \text{5 or 6}
5 ~~ 5 \text{ if } x>0
5 ~~ 5\text{ or more}
5 ~~ 5\text{ or so}
5 ~~ \text{at least }5
5 ~~ \text{between 4 and 6}
5 ~~ \ge 5
5 ~~ >5
5 ~~ \ne 5
5 ~~ <6
5 ~~ 4<x<6
5 ~~ [5,5]
5 ~~ (5,5)
5 ~~ \{5,6\}
5 ~~ 5\pm0
5 ~~ 5!
5 ~~ 5?
5 ~~ 5\cdot
5 ~~ 5x
5 ~~ \sqrt{-25}
5 ~~ -5
5 ~~ 5.0000001
5 ~~ 5\approx 5.1
\text{June 20} ~~ \text{June 21}
\text{June 20} ~~ 20
\text{Monday} ~~ \text{Tuesday}
3\text{ p.m.} ~~ 3\text{ a.m.}
1:03\text{ PM} ~~ 1:03 AM
1234_5 ~~ 1234
1234_5 ~~ 1234_6
12 ~~ 5
y=2x ~~ f(x)=2x
y=2x ~~ y=3x
(x-1)^2+y^2=4 ~~ (x+1)^2+y^2=4
x^2+y^2=4 ~~ 4
\frac{\pi}{4}+k\pi ~~ \frac{\pi}{4}+n\pi
\frac{\pi}{6}, \frac{5\pi}{6} ~~ 30^\circ,150^\circ
\frac{1\pm\sqrt5}{2} ~~ \frac{1+\sqrt5}{2}
(1,2),(3,4) ~~ (1,2),(4,3)
(1,2,3) ~~ (1,2)
(1,2,3) ~~ 3,2,1
(x,y)=(1,2) ~~ (2,1)
A=5 ~~ B=5
\text{even} ~~ \text{evn}
\text{neither even nor odd} ~~ \text{neither}
\text{true} ~~ \text{T}
10, 20 ~~ 10
10, 20 ~~ 1020
1.000.000 ~~ 1000000
5\text{ m}^2 ~~ 5\text{ m}^3
a^2\text{ cm}^2 ~~ a^2\text{ cm}^3
2\pi r\text{ cm} ~~ 2\pi r\text{ m}
\frac{\pi}{2}\text{ cm}^2 ~~ \frac{\pi}{2}\text{ cm}^3
10\text{ N/m} ~~ 10\text{ N}\cdot\text{m}
10\text{ N/m} ~~ 10\text{ N/m}^2
3\text{ g/cm}^3 ~~ 3\text{ g/cm}^2
20\text{ miles per gallon} ~~ 20\text{ mpg}
2:30 ~~ 5:75
10:00\text{ a.m.} ~~ 10\text{ a.m.}
2,2,3 ~~ 2,3
2,2,3 ~~ 2,3,3
(1,1,2) ~~ (1,2,2)
x+y=7 ~~ 7
2x+y=5 ~~ 5
x^2+y^2=25 ~~ 25
x=3 ~~ y=3
2 ~~ 2\text{ dozen eggs}
7 ~~ 7\text{ million}
33\frac{1}{3}\% ~~ 33.33\%
7 ~~ x = = 7
7 ~~ <7>
(1,\infty) ~~ x≥1
x<2 ~~ x>2
58,500 ~~ 58.500
\text{no real solutions} ~~ \emptyset
0.\overline{36} ~~ 0.36
0.\overline{36} ~~ 0.3636
\overline{AB} ~~ \overline{CD}
10 ~~ \text{ten cents}
0 ~~ \text{none}
1 ~~ \text{once}
x^2+3x+2 ~~ (x+1)(x+2)=0
6x^2 ~~ 6x^3
4x ~~ 4y
A ~~ a
\text{Alice} ~~ \text{Bob}
\text{east} ~~ \text{seat}
\text{stop} ~~ pots
p\to q ~~ q\to p
\begin{pmatrix}1\\0\end{pmatrix} ~~ \begin{pmatrix}0\\1\end{pmatrix}
16\pi ~~ 50.265
\frac{22}{7} ~~ 3.14
\sqrt2 ~~ 1.414
1000000 ~~ 999999.999999
0.3 ~~ 0.30000000000000004
-7 ~~ 7
7 ~~ 7 \text{ or } 7
7 ~~ 7,7
2^{100} ~~ 2^{101}
10^{100} ~~ 10^{100}+1
100! ~~ 99!
n! ~~ (n-1)!
2n+1 ~~ 2k+1
3+2i ~~ 3-2i
|x-3| ~~ x-3
\log 2 ~~ \ln 2
\sin x ~~ \cos x
e ~~ 2.718
\frac{a}{b} ~~ \frac{b}{a}
(2,3) ~~ [2,3]
(0,0),(1,1) ~~ (1,1), (0,0), (2,2)
\$5.50 ~~ £5.50
23_{10} ~~ 23
10111_2 ~~ 23
10111_2 ~~ 10111
3\ \text{cm} ~~ 3\ \text{mm}
150\text{ cm} ~~ 1.5\text{ m}
""".strip().splitlines()


@pytest.mark.parametrize('pair', EQUAL)
def test_the_same_answer(checker, pair):
  assert checker.compare(*pair.split(' ~~ ')).correct


@pytest.mark.parametrize('pair', DIFFERENT)
def test_another_answer(checker, pair):
  assert not checker.compare(*pair.split(' ~~ ')).correct


@pytest.mark.parametrize(
  ('written', 'normal'),
  [
    (r'\dfrac12', r'\frac{1}{2}'),
    ('½', '1/2'),
    (r'1{,}000', '1000'),
    (r'\text{7}', '7'),
    (r'\left( 1,\!000 \right)', '( 1000 )'),
    ('**7**.', '7'),
    ('x²', 'x^{2}'),
    (r'0.1\overline{6}', r'\frac{1}{6}'),
    (r'132_{\text{five}}', '132_{5}'),
  ],
)
def test_one_spelling(written, normal):
  assert maths_spelling.normalize(written).strip() == normal


@pytest.mark.parametrize(
  ('text', 'kind'),
  [
    ('1, 2', 'list'),
    (r'\{1, 2\}', 'set'),
    ('(1, 2)', 'tuple'),
    (r'0 < x \le 2', 'region'),
    ('x+y=5', 'equation'),
    ('3:30', 'time'),
    ('3:4', 'ratio'),
    ('58,500', 'value'),
    ('1:2:3', 'ratio'),
    (r'\text{even}', 'words'),
  ],
)
def test_kinds_of_answers(text, kind):
  assert maths_structure.read(text).kind == kind


@pytest.mark.parametrize(
  ('text', 'units'),
  [
    (r'5\text{ m/s}', (('m', 1), ('s', -1))),
    (r'5\text{ meters per second}', (('m', 1), ('s', -1))),
    (r'60\text{ mph}', (('h', -1), ('mi', 1))),
    (r'5\text{ cm}^2', (('cm', 2),)),
    (r'5\text{ square centimeters}', (('cm', 2),)),
    ('5 cm^2', (('cm', 2),)),
    ('5', ()),
    (r'5\text{ apples}', ()),
  ],
)
def test_units(text, units):
  assert maths_units.read(text).units == units
