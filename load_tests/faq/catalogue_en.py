"""English families of questions: patterns that mean the same, and the slot values that make them differ.

Two questions have the same label when they come from the same family and slot value; every other value of the same
family is a hard negative (another number, name, side, day, quoted code).
"""

from __future__ import annotations

from load_tests.faq.family import Family

OBJECTS = "order|subscription|appointment|hotel booking|membership|gift card|flight|delivery"
FEATURES = (
    "roaming|two-factor authentication|push notifications|dark mode|auto-renewal|voicemail|location sharing"
)

FAMILIES = (
    Family(OBJECTS, (
        "How do I cancel my {}?", "How can I cancel a {}?", "I want to cancel my {}", "cancel {}",
        "What is the way to cancel the {} I made?", "Is it possible to cancel my {}, and how?",
        "Could you explain how to call off my {}?", "steps for cancelling a {}",
    )),
    Family(OBJECTS, (
        "How do I change my {}?", "How can I modify a {}?", "I need to change the details of my {}",
        "Can I edit my {} and how?", "What do I do to update my {}?", "modify {}",
        "I made a mistake in my {}, how do I correct it?",
    )),
    Family(OBJECTS, (
        "How do I track my {}?", "Where can I see the status of my {}?", "check the status of my {}",
        "What is the current state of my {}?", "How can I follow up on my {}?", "I would like to track my {}",
        "Where do I look up how my {} is going?",
    )),
    Family(FEATURES, (
        "How do I turn on {}?", "How can I enable {}?", "I want to activate {}", "enable {}",
        "What are the steps to switch on {}?", "Where is the setting to enable {}?", "Please help me activate {}",
    )),
    Family(FEATURES, (
        "How do I turn off {}?", "How can I disable {}?", "I want to deactivate {}", "disable {}",
        "What are the steps to switch off {}?", "Where is the setting to disable {}?", "Please help me deactivate {}",
    )),
    Family("3|7|14|30|60|90", (
        "Can I return an item after {} days?", "Is a return still possible {} days after purchase?",
        "I bought something {} days ago, can I send it back?", "return after {} days",
        "Do you accept returns within {} days?", "My purchase is {} days old, may I still return it?",
    )),
    Family("5|10|15|20|25|50", (
        "How do I get the {}% discount?", "Where do I enter the code for {}% off?", "{}% discount how",
        "I have a coupon for {}%, how can I use it?", "What do I need to do for the {}% reduction?",
    )),
    Family("E101|E102|E203|E404|E500|E777", (
        'What does the error "{}" mean?', 'I get the message "{}", what is it?', 'error "{}"',
        'How do I fix "{}"?', 'The app shows "{}" and stops, what can I do?', 'Meaning of the code "{}"',
    )),
    Family("Android|iOS|Windows|Linux|macOS|ChromeOS", (
        "Does the app work on {}?", "Is there a version for {}?", "Can I install your app on {}?",
        "Do you support {}?", "Will it run on my {} device?", "I use {}, can I use the app?",
    )),
    Family("Monday|Wednesday|Friday|Saturday|Sunday", (
        "Are you open on {}?", "What are your opening hours on {}?", "When do you close on {}?",
        "Is the shop open {}?", "Can I come to the shop on {}?", "opening times {}",
    )),
    Family("Germany|France|Japan|Brazil|Canada|Kenya|India|Mexico", (
        "Do you ship to {}?", "Can I have my parcel sent to {}?", "Is delivery to {} possible?",
        "I live in {}, can I order?", "Do you deliver to addresses in {}?", "shipping to {}",
    )),
    Family("Germany|France|Japan|Brazil|Canada|Kenya|India|Mexico", (
        "How much is shipping to {}?", "What does delivery to {} cost?", "shipping cost {}",
        "What are the postage fees for {}?", "How expensive is it to send a parcel to {}?",
    )),
    Family("password|username|email address|phone number|billing address|PIN|security question|profile picture", (
        "How do I change my {}?", "I want to update my {}", "Where can I edit my {}?", "change {}",
        "What is the way to set a new {}?", "My {} is no longer right, how do I change it?",
    )),
    Family("password|username|PIN|security question|voucher code|customer number", (
        "I forgot my {}, what now?", "How can I recover my {}?", "I lost my {}", "forgotten {}",
        "I cannot remember my {}, please help", "What do I do when I do not know my {} any more?",
    )),
    Family("credit card|PayPal|bank transfer|Apple Pay|gift card|invoice|cash", (
        "Can I pay by {}?", "Do you accept {}?", "Is {} a payment option?", "paying with {}",
        "I would like to pay using {}, is that possible?", "Do you take {}?",
    )),
    Family("deposit|withdraw|transfer|exchange", (
        "How do I {} money?", "I want to {} money", "What are the steps to {} funds?",
        "How can I {} some money from the app?", "{} money how",
    )),
    Family("before|after", (
        "Can I change my seat {} check-in?", "Is changing seats possible {} check-in?",
        "I want another seat {} check-in, how?", "seat change {} check-in",
    )),
    Family("2|5|10|20|100", (
        "How do I book for a group of {} people?", "We are {} persons, how can we book?",
        "Can I reserve for {} people?", "booking for {} people", "Is there room for {} of us?",
    )),
    Family("laptop|phone|washing machine|headphones|camera|printer|router|vacuum cleaner|television|tablet", (
        "My {} is broken, what can I do?", "How do I get my {} repaired?", "My {} does not work any more",
        "The {} I bought stopped working", "repair of a {}", "Where can I have my {} fixed?",
    )),
    Family("laptop|phone|washing machine|headphones|camera|printer|router|vacuum cleaner|television|tablet", (
        "How long is the warranty on a {}?", "What warranty does my {} have?", "warranty {}",
        "For how long is my {} covered?", "Until when is the {} guaranteed?",
    )),
    Family("refund|replacement|invoice|receipt|confirmation email|tracking number|refund for a damaged item", (
        "How do I get a {}?", "I have not got my {}", "Where is my {}?", "When will I receive my {}?",
        "I am still waiting for my {}", "{} not arrived",
    )),
    Family("manager|technician|human agent|sales representative|doctor|lawyer", (
        "Can I talk to a {}?", "I want to speak with a {}", "Connect me to a {}", "How do I reach a {}?",
        "Is there a {} I could call?", "Put me through to a {} please",
    )),
    Family("gym|pool|parking|breakfast|wifi|spa|restaurant|laundry|shuttle bus|meeting room", (
        "Does the hotel have a {}?", "Is there {} at the hotel?", "Do you offer {}?", "{} available?",
        "I would like to use the {}, is there one?",
    )),
    Family("gym|pool|parking|breakfast|wifi|spa|restaurant|laundry|shuttle bus|meeting room", (
        "How much does the {} cost?", "What is the price of the {}?", "Do I have to pay for {}?",
        "Is the {} included in the price?", "{} price",
    )),
)  # fmt: skip

OPENINGS = ("", "", "", "", "Hi, ", "Hello! ", "Quick question: ", "Good morning. ", "Excuse me, ")
CLOSINGS = ("", "", "", "", " Thanks.", " Thank you!", " Please help.")
