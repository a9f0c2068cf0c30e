"""English phrases of the support messages; each split has phrases of its own.

``{item}`` is the product the message is about, ``{other}`` another one, ``{n}`` a five-digit number.
"""

from __future__ import annotations

Split = dict[str, list[str]]

ITEMS = {
    "phone": ["phone", "mobile"],
    "laptop": ["laptop"],
    "headphones": ["headphones", "headset"],
    "charger": ["charger"],
    "watch": ["watch", "smartwatch"],
    "camera": ["camera"],
    "printer": ["printer"],
    "keyboard": ["keyboard"],
}

# Names that only the test split uses.
TEST_ITEMS = {
    "phone": ["smartphone", "handset"],
    "laptop": ["notebook computer"],
    "headphones": ["earphones"],
    "charger": ["power adapter"],
    "watch": ["wristwatch"],
}

PROBLEMS: dict[str, Split] = {
    "refund": {
        "train": [
            "I would like a refund for the {item}.",
            "Please give me my money back for the {item}.",
            "I sent the {item} back last week and have not been paid back.",
            "I changed my mind about the {item}; how do I get the amount returned?",
            "The {item} is not what I expected, I want to return it for a refund.",
            "You collected the returned {item} but my bank shows nothing.",
            "When will you reimburse me for the {item}?",
            "Not a replacement for the {item}, please, just the money.",
            "The {other} stays with me, but for the {item} I want my payment back.",
            "I want to send the {item} back and be repaid.",
            "The return was accepted. Where is my money?",
            "The {item} does not suit me, so kindly refund the price.",
        ],
        "validation": [
            "Please pay me back what I spent on the {item}.",
            "The {item} went back to you, my refund did not arrive.",
        ],
        "test": [
            "I returned the {item} and I am still waiting for the sum to show up in my account.",
            "Can I hand the {item} back and have my cash returned?",
            "I do not want another {item}; put the payment back on my card.",
            "After sending back the {item} I should have been repaid by now.",
            "I am keeping the {other}. The {item} goes back, and I expect its price returned.",
            "How long until I see the money for the {item} I gave back?",
            "My wife dislikes the {item}, so we would rather have the money again.",
        ],
    },
    "delivery": {
        "train": [
            "Where is my {item}? It should have come on Tuesday.",
            "The {item} has not arrived yet.",
            "My {item} was shipped ten days ago and I still do not have it.",
            "The tracking page of my {item} has not moved for a week.",
            "Has the {item} left your warehouse?",
            "The courier says the {item} was handed over, but nobody here received it.",
            "The {other} came, the {item} did not.",
            "Please do not cancel the {item}, just tell me when it gets here.",
            "I am still waiting for the {item} to be delivered.",
            "When will the {item} reach me?",
            "Where is my parcel?",
            "The delivery of the {item} is late again.",
        ],
        "validation": [
            "The {item} is overdue, where did the courier take it?",
            "Nothing has come yet. When does the {item} get here?",
        ],
        "test": [
            "Could you check where the {item} is now? The driver never came.",
            "Only the {other} was in the van; the {item} is still on its way, they say.",
            "I was promised the {item} last Friday and the doorstep is empty.",
            "Your site says delivered, yet I have never seen the {item}.",
            "Any news on when the {item} will get to me?",
            "I do not want to call it off, I only wonder where the {item} is.",
            "The box with the {item} seems lost on the road.",
        ],
    },
    "defect": {
        "train": [
            "The {item} will not turn on.",
            "The {item} arrived today with a crack in it.",
            "My {item} stopped working after two days.",
            "The {item} is broken.",
            "There is a fault with the {item}: it gets very hot.",
            "The {item} came late, which is fine, but it does not work.",
            "The {item} makes a strange noise and then goes off.",
            "The {other} works, the {item} does not.",
            "I do not want a refund, I want a {item} that works.",
            "A button on the {item} is stuck.",
            "The {item} was damaged when I opened the box.",
            "The {item} keeps switching itself off.",
        ],
        "validation": [
            "The {item} went dead this week.",
            "One side of the {item} is bent and it no longer starts.",
        ],
        "test": [
            "The {item} stays dark whatever I press.",
            "I have nothing against the {other}; it is the {item} that does not start.",
            "No refund needed, but this {item} fails every time I use it.",
            "I unpacked the {item} and part of it was smashed.",
            "Since the courier delivered the {item}, it has never worked properly.",
            "The {item} dies after five minutes of use.",
            "Something inside the {item} is loose and it shuts down.",
        ],
    },
    "cancel": {
        "train": [
            "Please cancel my {item}.",
            "I want to cancel the order for the {item}.",
            "I ordered the {item} twice by mistake, please cancel one.",
            "Do not send the {item}, I no longer need it.",
            "Stop the {item} before it is shipped, please.",
            "I found a cheaper {item}, so please call off my purchase.",
            "Leave the {other} as it is, but take the {item} off my order.",
            "I have not paid for the {item} yet and would like to withdraw.",
            "Can I still cancel? I do not need the {item} any more.",
            "Please do not ship the {item}.",
            "Kindly drop the {item} from my order.",
            "I would like to call off the order.",
        ],
        "validation": [
            "The {item} is no longer wanted, please stop the order.",
            "Take back my order of the {item} before it ships.",
        ],
        "test": [
            "Please hold back the {item}, I do not want it any more.",
            "I pressed buy by accident; please scrap the {item}.",
            "My plans changed: no {item} for me, do not dispatch it.",
            "Send only the {other}; the {item} can be removed.",
            "Is it too late to back out of buying the {item}?",
            "Could you void the purchase of the {item} before it goes out?",
            "We already have a {item}, so this one should not be shipped.",
        ],
    },
    "invoice": {
        "train": [
            "Please send me the invoice for the {item}.",
            "I need a receipt for the {item}.",
            "The invoice for the {item} shows the wrong company name.",
            "Could I have the bill of the {item} as a PDF?",
            "My refund came, but the invoice of the {item} is missing.",
            "There is no receipt in the box of the {item}.",
            "The {other} came with a bill, the {item} without one.",
            "Our accountant asks for a tax invoice of the {item}.",
            "The tax number on my invoice is wrong.",
            "I cannot find the bill for the {item} anywhere.",
            "Please correct the address on the receipt for the {item}.",
            "Can you write the invoice of the {item} to my firm?",
        ],
        "validation": [
            "I still lack a bill for the {item}.",
            "Please mail the receipt of the {item} once more.",
        ],
        "test": [
            "My employer pays for the {item} only with a proper bill.",
            "The {item} is great, only the paper with price and tax was not in the parcel.",
            "For my taxes I must have the document of payment for the {item}.",
            "You billed the {item} to my old firm, please change the name.",
            "I got the invoice of the {other} but not that of the {item}.",
            "Please issue the receipt for the {item} again, the amount is wrong.",
            "Our bookkeeper wants a copy of the invoice for the {item}.",
        ],
    },
    "account": {
        "train": [
            "I cannot log in to my account.",
            "I forgot my password and the reset mail does not come.",
            "My account is locked.",
            "The site says that my password is wrong.",
            "Please change the e-mail address of my account.",
            "The login code never reaches me, I am on my {other} now.",
            "I tried to sign in from my {other} and was refused.",
            "Please delete my profile.",
            "Someone else has signed in to my account.",
            "The sign-in page throws me out, on the {other} as well.",
            "I want to close my account, not cancel an order.",
            "How do I set a new password?",
        ],
        "validation": [
            "I am locked out and the password reset fails.",
            "My login does not work on the {other}.",
        ],
        "test": [
            "Your site does not let me in, though I type the right password.",
            "I try to log in on my {other} and it asks for a code that never comes.",
            "Please put another e-mail on my profile.",
            "I think a stranger uses my login.",
            "It keeps saying unknown user when I sign in with the {other}.",
            "The link for a new password has expired.",
            "My access was blocked after three tries.",
        ],
    },
}

ORDERS: Split = {
    "train": [
        "Order {n}.",
        "My order number is {n}.",
        "Order no. {n}",
        "It is order #{n}.",
        "The order is {n}.",
        "(order {n})",
        "I ordered it under {n}.",
        "Purchase {n}.",
    ],
    "validation": ["Number of the order: {n}.", "See order {n}."],
    "test": [
        "You will find it as {n} in my orders.",
        "Purchase number: {n}",
        "Ref. {n}",
        "The confirmation mail says {n}.",
    ],
}

NUMBERS: Split = {
    "train": [
        "I paid {n} for it.",
        "My postcode is {n}.",
        "The serial number is {n}.",
        "My extension is {n}.",
        "I have been a customer since ticket {n}.",
    ],
    "validation": ["The price was {n}.", "Serial {n}."],
    "test": [
        "They took {n} from my card.",
        "I live in {n}, near the station.",
        "It has the serial {n} on its back.",
        "Call me on extension {n}.",
    ],
}

SECONDS: Split = {
    "train": [
        "The {other} from the same order is fine.",
        "I also bought a {other}, which I like.",
        "This is not about the {other}.",
        "My {other} is from your shop, too.",
        "I am happy with the {other}.",
    ],
    "validation": ["The {other} is all right.", "No trouble with the {other}."],
    "test": [
        "I have no complaint about the {other}.",
        "The {other} I got last year was perfect.",
        "Forget what I wrote about the {other}, that is settled.",
    ],
}

URGENCY: dict[str, Split] = {
    "high": {
        "train": [
            "This is urgent.",
            "I need an answer today.",
            "Please act immediately.",
            "I fly tomorrow morning.",
            "My exam is tomorrow.",
            "We have a wedding this evening and need it.",
            "I cannot work without it.",
            "As soon as possible, please!",
            "I am losing customers every hour.",
            "Tomorrow is too late.",
            "It has to be solved tonight.",
            "Help me right now!",
        ],
        "validation": ["I must have it by tomorrow.", "My shop stands still without it."],
        "test": [
            "My train leaves in two hours.",
            "I have a job interview in the morning.",
            "Each hour of this costs me money.",
            "It is my daughter's birthday tonight.",
            "This cannot wait until next week.",
            "I am stuck at work until it is solved.",
        ],
    },
    "low": {
        "train": [
            "There is no hurry.",
            "This is not urgent.",
            "Take your time.",
            "Whenever you have time.",
            "Next month is fine, too.",
            "No need to answer today.",
            "It can wait.",
            "Just when it is convenient for you.",
        ],
        "validation": ["No rush at all.", "Answer when you like."],
        "test": [
            "I am in no rush.",
            "Any time this month will do.",
            "Do not hurry because of me.",
            "Please deal with the urgent cases of others first.",
            "Tomorrow or in two weeks, I do not mind.",
        ],
    },
    "normal": {
        "train": ["Thanks for your help.", "I wrote to you yesterday as well.", "What should I do?"],
        "validation": ["Thank you very much.", "Please advise."],
        "test": [
            "It is a month today since I bought it.",
            "Many thanks in advance.",
            "How do we go on from here?",
        ],
    },
}

GREETINGS = ["Hi", "Hello", "Good morning", "Dear team", "Hey there", "Good evening"]
SIGNATURES = ["Regards, Sam", "Best, Nora", "Thanks, Omid", "Lena", "Yours, Mr. Hill", "- Ada"]
