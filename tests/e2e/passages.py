"""Passages of our own writing, in English and Persian, that questions are written about."""

from __future__ import annotations

ENGLISH = (
    "The lighthouse on Gull Island was built in 1874 by the engineer Thomas Arden. It is 31 metres tall, "
    "and its lamp can be seen from a distance of forty kilometres.",
    "Mira's bakery opens at six in the morning. She sells rye bread, cheese rolls and apple cake, but on "
    "Mondays the shop stays closed.",
    "A honey bee visits up to two thousand flowers in a day. It carries the pollen on its hind legs back to "
    "the hive, where it feeds the young bees.",
    "Customers may return a lamp within thirty days. The lamp must be unused, and the receipt has to lie in "
    "the parcel. The money is paid back within one week.",
    "The Karst river rises in the Velka hills and flows north for 210 kilometres. Near the town of Osmund "
    "it drives an old mill, which still grinds wheat.",
    "To reset the coffee machine, hold the red button for five seconds. The display shows a star, and after "
    "two minutes the machine is ready.",
    "Professor Lind found the stone tablet in 1932 in a cave near Harran. It lists the names of eleven kings "
    "and is kept in the museum of Tarsen today.",
    "The night train leaves Borden at 22:40 and arrives in Selm at half past six. Bicycles may be taken "
    "along, but they need a ticket of their own.",
)
PERSIAN = (
    "فانوس دریایی جزیره‌ی کاکل در سال ۱۲۵۳ ساخته شد. بلندی آن ۳۱ متر است و نور چراغش "
    "از چهل کیلومتری دیده می‌شود.",
    "نانوایی مینا ساعت شش صبح باز می‌شود. او نان جو و کلوچه می‌فروشد، ولی روزهای شنبه مغازه بسته است.",
    "زنبور عسل در یک روز به دو هزار گل سر می‌زند. گرده را با پاهای عقبش به کندو می‌برد "
    "و با آن به نوزادان غذا می‌دهد.",
    "مشتری می‌تواند چراغ را تا سی روز پس بدهد. چراغ باید نو باشد و رسید در بسته باشد. "
    "پول تا یک هفته برمی‌گردد.",
)
