"""English phrases of the support messages; each split has phrases of its own.

``{item}`` is the product the message is about, ``{other}`` another one, ``{n}`` a four-digit number.
"""

from __future__ import annotations

Split = dict[str, list[str]]

ITEMS = {
    "phone": ["phone", "mobile"],
    "laptop": ["laptop"],
    "headphones": ["headphones", "headset"],
    "printer": ["printer"],
    "camera": ["camera"],
}

# Names that only the test split uses.
TEST_ITEMS = {"phone": ["smartphone", "handset"], "headphones": ["earphones"], "laptop": ["notebook PC"]}

PROBLEMS: dict[str, Split] = {
    "refund": {
        "train": [
            "I would like a refund for the {item}.",
            "Please give me my money back for the {item}.",
            "I sent the {item} back and have not been paid back.",
            "I changed my mind about the {item}; how do I get the amount returned?",
            "I want to return the {item} for a refund.",
            "You collected the {item} but my bank shows nothing.",
            "When will you reimburse me for the {item}?",
            "Not a new {item}, please, just the money.",
            "For the {item} I want my payment back.",
            "I want to send the {item} back and be repaid.",
            "The return of the {item} was accepted. Where is my money?",
            "The {item} does not suit me, kindly refund the price.",
            "I am waiting for the money for the {item}.",
            "The {item} was broken, I gave it back, now pay me, please.",
            "The courier took the {item} back. Where is my money?",
        ],
        "validation": ["Please pay me back for the {item}.", "The {item} went back, no refund so far."],
        "test": [
            "I returned the {item} and the sum has not shown up in my bank.",
            "Can I hand the {item} back and have my cash again?",
            "I do not want another {item}; put the payment back on my card.",
            "After sending back the {item} I should have been repaid by now.",
            "How long until I see the money for the {item} I gave back?",
            "My wife dislikes the {item}, we would rather have the money again.",
        ],
    },
    "delivery": {
        "train": [
            "Where is my {item}?",
            "The {item} has not arrived yet.",
            "My {item} was shipped ten days ago and I do not have it.",
            "The tracking page of my {item} has not moved.",
            "Has the {item} left your warehouse?",
            "The courier says the {item} was handed over, but nobody received it.",
            "The {item} should have come on Tuesday.",
            "When does my {item} get here?",
            "I am still waiting for the {item} to be delivered.",
            "When will the {item} reach me?",
            "Why is the {item} not sent?",
            "The delivery of the {item} is late again.",
            "The parcel with the {item} is lost.",
            "I paid for the {item} but it has not come.",
            "I do not want my money back, just send the {item}.",
            "My account says the {item} has come, but it has not.",
        ],
        "validation": ["The {item} is overdue.", "Nothing has come yet. When does the {item} get here?"],
        "test": [
            "Could you check where the {item} is now? The driver never came.",
            "I was promised the {item} last Friday and the doorstep is empty.",
            "Your site says delivered, yet I have never seen the {item}.",
            "Any news on when the {item} will get to me?",
            "The box with the {item} seems lost on the road.",
            "I logged in and saw that the {item} is stuck on its way.",
            "I do not ask for money, I only ask when the {item} comes.",
        ],
    },
    "defect": {
        "train": [
            "The {item} will not turn on.",
            "The {item} has a crack in it.",
            "My {item} stopped working after two days.",
            "The {item} is broken.",
            "There is a fault with the {item}.",
            "The {item} gets very hot.",
            "The {item} makes a strange noise and then goes off.",
            "The {item} does not work.",
            "I want a {item} that works, this one does not.",
            "A button on the {item} is stuck.",
            "The {item} was damaged when I opened the box.",
            "The {item} keeps switching itself off.",
            "Something rattles in the {item}.",
            "I do not want money back, please repair the {item}.",
            "I paid a lot for a {item} that is broken.",
            "The password of the {item} is right, but it does not start.",
        ],
        "validation": ["The {item} went dead.", "The {item} is bent and no longer starts."],
        "test": [
            "The {item} stays dark whatever I press.",
            "This {item} fails every time I use it.",
            "I unpacked the {item} and part of it was smashed.",
            "Since the first day the {item} has not run properly.",
            "So much money, and the {item} dies after five minutes.",
            "Something inside the {item} is loose and it shuts down.",
        ],
    },
    "account": {
        "train": [
            "I cannot log in to my account.",
            "I forgot my password.",
            "My account is locked.",
            "The site says that my password is wrong.",
            "Please change the e-mail address of my account.",
            "The login code never reaches me.",
            "I tried to sign in from my {other} and was refused.",
            "On my {other} the password is not accepted.",
            "Please delete my profile.",
            "Someone else has signed in to my account.",
            "I need a new password.",
            "No login code came to my {other}.",
            "How do I change the password of my profile?",
            "The site does not know my name any more.",
        ],
        "validation": ["The password reset fails.", "My login does not work on the {other}."],
        "test": [
            "Your site does not let me in, though I type the right password.",
            "With my {other} it asks for a code to log in that never comes.",
            "Please put another e-mail on my profile.",
            "I think a stranger uses my login.",
            "It says unknown user when I sign in with the {other}.",
            "My access was blocked after three tries.",
        ],
    },
}

ORDERS: Split = {
    "train": ["Order {n}.", "My order number is {n}.", "It is order #{n}.", "(order {n})", "Purchase {n}."],
    "validation": ["See order {n}."],
    "test": ["You will find it as order {n}.", "Purchase number: {n}", "Ref. {n}"],
}

NUMBERS: Split = {
    "train": ["I paid {n} for it.", "My postcode is {n}.", "The serial is {n}.", "My extension is {n}."],
    "validation": ["The price was {n}."],
    "test": ["They took {n} from my card.", "I live in {n}.", "It has the serial {n}."],
}

SECONDS: Split = {
    "train": [
        "The {other} is fine.",
        "I am happy with the {other}.",
        "This is not about the {other}.",
        "The {other} came in good order.",
        "I keep the {other}.",
        "No trouble with the {other}.",
    ],
    "validation": ["The {other} is all right.", "I like the {other}."],
    "test": [
        "I have no complaint about the {other}.",
        "The {other} works perfectly.",
        "Forget about the {other}, that is settled.",
    ],
}

BACKGROUND: Split = {
    "train": [
        "I paid the full price.",
        "I gave my card at once.",
        "I logged in and bought it.",
        "The courier was kind.",
        "The box arrived undamaged.",
        "I wrote an e-mail, too.",
    ],
    "validation": ["I paid on the same day."],
    "test": [
        "The money left my card that day.",
        "The parcel came early and was not damaged.",
        "I signed in on your site to buy it.",
    ],
}

URGENT: Split = {
    "train": [
        "This is urgent.",
        "I need an answer today.",
        "Please act immediately.",
        "I fly tomorrow morning.",
        "My exam is tomorrow.",
        "I need it tonight.",
        "As soon as possible, please!",
        "Tomorrow is too late.",
        "I cannot wait.",
        "We have guests and need it.",
        "My work stands still.",
        "Help me right now!",
    ],
    "validation": ["I must have it by tomorrow.", "Quick, please!"],
    "test": [
        "My train leaves in two hours.",
        "I have a job interview in the morning.",
        "Each hour of this costs me money.",
        "It is my daughter's birthday tonight.",
        "This cannot wait.",
    ],
}

CALM: Split = {
    "train": [
        "There is no hurry.",
        "This is not urgent.",
        "Answer whenever you have time.",
        "No need to answer today.",
        "I can wait.",
        "Thanks for your help.",
        "I wrote to you yesterday as well.",
        "If not today, tomorrow is fine.",
        "I bought it today.",
    ],
    "validation": ["No rush at all.", "Thank you very much."],
    "test": [
        "Do not hurry because of me.",
        "Please deal with urgent cases first.",
        "Tomorrow or in two weeks, I do not mind.",
        "Many thanks in advance.",
    ],
}

GREETINGS = ["Hi", "Hello", "Dear team", "Good morning"]
SIGNATURES = ["Sam", "Best, Nora", "Thanks, Omid", "Lena"]
