/* SPDX-License-Identifier: MIT
 *
 * story_grammar.c: every word that a story can hold.
 *
 * Read the sentences first: they are the story. Words that follow "a" begin with a consonant.
 * Whatever has to agree is one list with several forms: a hero and the pronouns, a helper's name
 * and animal, a mishap and its two remedies. So no rule is needed beside the tables.
 */
#include "text/story_grammar.h"

#define ENTRIES(...)                    \
    (const char *const[]){__VA_ARGS__}, \
        sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)
/* clang-format off */
#define CAST(name, forms, ...) {name, KILN_STORY_CAST, forms, ENTRIES(__VA_ARGS__)}
#define WORD(name, ...)        {name, KILN_STORY_WORD, NULL, ENTRIES(__VA_ARGS__)}
#define SENTENCE(name, ...)    {name, KILN_STORY_SENTENCE, NULL, ENTRIES(__VA_ARGS__)}

#define SHE(name) name "|she|her|her|girl"
#define HE(name)  name "|he|him|his|boy"

const struct kiln_story_list kiln_story_lists[] = {

/* ---- The story, sentence by sentence ---- */

WORD("story",
    "{opening} {likes} {wish} {day} {find} {loss} {grief} {help} {comfort} {cure} {thanks} "
    "{moral}"),

SENTENCE("opening",
    "Once upon a time, there was a {trait} {kind} named {hero} {surname}.",
    "Once there lived a {trait} {kind} named {hero} {surname} in a {look} {house}.",
    "In a {look} {house}, there lived a {trait} {kind} named {hero} {surname}."),

SENTENCE("likes",
    "Every {daytime}, {hero.he} liked to {hobby} and eat {tasty} {food}.",
    "{Hero.he} could {hobby} all day long, and {hero.he} loved {tasty} {food} with {drink}.",
    "{Hero.he} had a {trait} {pet}, and together they liked to {hobby} and {play}."),

SENTENCE("wish",
    "More than anything, {hero.he} wished for a {color} {thing} to {thing.use}.",
    "{Hero.he} dreamed of a {color} {thing} to {thing.use} every {daytime}.",
    "\"I wish I had a {color} {thing} to {thing.use},\" {hero.he} told the {listener}."),

SENTENCE("day",
    "One {weather} {daytime}, {hero.he} went to the {place} with {hero.his} {trait} {family}.",
    "Then, on a {weather} {daytime}, {hero.his} {trait} {family} took {hero.him} to the {place}."),

SENTENCE("find",
    "There {hero.he} found one behind a {look} {landmark}, next to some {tasty} {food}.",
    "There a {trait} {seller} sold {hero.him} one for {number} coins and a {soft} smile.",
    "There stood a {trait} {seller}, who gave {hero.him} one for some {tasty} {food}."),

SENTENCE("loss",
    "But {suddenly} the {thing} {mishap}.",
    "{Hero.he} {jumped} for joy, but {suddenly} the {thing} {mishap}.",
    "{Hero.he} wanted to {thing.use} it right away, but {suddenly} it {mishap}."),

SENTENCE("grief",
    "{Hero} felt {sad} and sat down next to a {look} {landmark}.",
    "\"Oh no, my {thing}!\" cried {hero}, {sad} and {tired}.",
    "{Hero} was so {sad} that {hero.he} cried for {number} minutes."),

SENTENCE("help",
    "Just then, a {nature} {friend.animal} named {friend} came {along}.",
    "A {nature} {friend.animal} named {friend} heard {hero.him} and came {along}.",
    "Luckily, a {nature} {friend.animal} in a {woolen} {coat} came {along}, and it was {friend}."),

SENTENCE("comfort",
    "\"Do not worry, I have a {good} idea,\" {said} the {friend.animal}.",
    "\"Why are you so {sad}?\" asked {friend} in a {soft} voice.",
    "\"Have some {tasty} {food}, and then I will help you,\" {said} the {friend.animal}."),

SENTENCE("cure",
    "{Slowly} and {gently}, {friend} {remedy}.",
    "It took {number} tries, but then the {friend.animal} {gently} {remedy}.",
    "{Friend} put down a {look} {bag} and {gently} {remedy}."),

SENTENCE("thanks",
    "\"Thank you!\" {said} {hero}, and they shared {tasty} {food} and {drink}.",
    "{Hero} thanked {friend} with {number} {gift} and a {soft} hug.",
    "They shared {tasty} {food} and {drink}, and then they {played} until {evening}."),

SENTENCE("moral",
    "{Hero} {thing.used} the {thing} all {daytime} and knew that {lesson}.",
    "That night, with the {thing} {spot}, {hero.he} learned that {lesson}.",
    "On the way home, with {number} {gift} in a {bag}, {hero} learned that {lesson}."),

/* ---- The cast: chosen once a story ----
 *
 * A small model is slow to learn that a word has to come back, and the slower the more words there
 * are to tell apart. These lists are therefore shorter than they could be; the variety is in the
 * words below. */

CAST("hero", "name he him his boy",
    SHE("Lily"), SHE("Anna"), SHE("Mia"), SHE("Rosa"),
    HE("Tom"), HE("Ben"), HE("Max"), HE("Leo")),

CAST("thing", "name use used",
    "kite|fly|flew", "ball|bounce|bounced", "drum|beat|beat", "boat|sail|sailed",
    "book|read|read", "bell|ring|rang", "hat|wear|wore", "flute|play|played"),

CAST("mishap", "loss fix mend",
    "got stuck in a {tree} tree"
        "|climbed up and brought it down"
        "|shook the branches until it fell down",
    "fell into a {deep} hole"
        "|dug it out with a spade"
        "|pulled it out with a rope",
    "splashed into a {cold} stream"
        "|swam out and caught it"
        "|fished it out with a long stick",
    "sank into {sticky} mud"
        "|lifted it out and washed it"
        "|stepped into the mud and saved it",
    "got caught in a {thorny} bush"
        "|cut it free with scissors"
        "|bent the twigs until it was free",
    "rolled under a {heavy} rock"
        "|pushed the rock away"
        "|raised the rock with a pole",
    "disappeared in the {tall} grass"
        "|looked behind every leaf and found it"
        "|combed the grass with a rake and found it",
    "was stolen by a {cheeky} {bird}"
        "|gave the bird a nut and got it back"
        "|followed the bird and got it back",
    "vanished in a {deep} cave"
        "|lit a lamp and spotted it in the cave"
        "|crept into the cave and came out with it",
    "landed on a {tall} roof"
        "|leaned a ladder on the roof and reached it"
        "|threw a net over it and drew it down"),

CAST("friend", "name animal",
    "Greta|goat", "Bruno|badger", "Otto|otter", "Hilda|horse", "Dora|donkey", "Tilda|turtle",
    "Felix|frog", "Oscar|owl"),

/* ---- Words: chosen anew each time ---- */

/* People and animals. */
WORD("kind",
    "{hero.boy}", "fox", "bear", "rabbit", "mouse", "kitten", "puppy", "hedgehog", "panda",
    "tiger", "penguin", "baker", "farmer", "painter", "sailor", "gardener"),
WORD("trait",
    "kind", "brave", "clever", "cheerful", "gentle", "shy", "curious", "quiet", "friendly",
    "lively", "merry", "patient", "playful", "sleepy", "polite", "dreamy", "young", "tidy",
    "funny", "loyal"),
WORD("surname",
    "Brown", "Green", "White", "Hill", "Brook", "Stone", "Moon", "Star", "Berry", "Frost", "Wood",
    "Reed", "Field", "Snow", "Lake", "Silver"),
WORD("nature",
    "wise", "strong", "jolly", "noble", "calm", "careful", "graceful", "helpful", "nimble",
    "plump", "steady", "watchful", "humble", "smart", "bold", "bright"),
WORD("pet",
    "cat", "dog", "hamster", "pony", "snail", "parrot", "duck", "lamb", "lizard", "cricket",
    "hen", "beetle"),
WORD("family",
    "mother", "father", "sister", "brother", "grandmother", "grandfather", "aunt", "uncle",
    "cousin", "neighbor", "teacher", "nephew"),
WORD("seller",
    "merchant", "tailor", "shepherd", "potter", "miller", "weaver", "clown", "juggler", "knight",
    "queen", "king", "fisherman"),
WORD("sad",
    "sad", "sorry", "lonely", "upset", "gloomy", "unhappy", "helpless", "worried"),
WORD("tired", "tired", "hungry", "thirsty", "dizzy", "pale", "wet", "cold", "afraid"),

/* What they do and say. */
WORD("hobby",
    "sing", "dance", "paint", "swim", "read", "cook", "climb", "run", "draw", "skip", "knit",
    "juggle", "bake", "hum", "sew", "whittle"),
WORD("play",
    "pick flowers", "tell stories", "chase butterflies", "build towers", "watch clouds",
    "count stars", "catch leaves", "ride a sled"),
WORD("played",
    "played games", "sang songs", "told jokes", "danced", "ran races", "drew pictures",
    "solved riddles", "flew paper planes"),
WORD("jumped",
    "jumped", "danced", "sang", "laughed", "clapped", "cheered", "hopped", "skipped"),
WORD("said", "said", "called", "whispered", "laughed", "sang", "shouted"),
WORD("soft", "soft", "loving", "kind", "gentle", "warm", "sweet", "tender", "friendly"),
WORD("good", "good", "clever", "bright", "grand", "simple", "splendid", "fine", "perfect"),
WORD("slowly",
    "slowly", "quickly", "bravely", "calmly", "boldly", "proudly", "happily", "eagerly"),
WORD("gently",
    "gently", "carefully", "patiently", "cleverly", "softly", "quietly", "neatly", "kindly"),
WORD("remedy", "{mishap.fix}", "{mishap.mend}"),
WORD("lesson",
    "a good friend is worth more than gold", "kind words make hard days easy",
    "it is fine to ask for help", "every problem is smaller with a friend",
    "joy grows when it is shared", "patience can solve many things",
    "a helping hand is the best gift", "tears dry faster in good company",
    "small deeds make big changes", "nobody has to be alone", "being kind costs nothing",
    "two heads are better than one", "a calm mind finds a way",
    "friends come when you need them", "courage begins with one small step",
    "every knot can be untied"),

/* When, where and how many. */
WORD("daytime",
    "morning", "afternoon", "evening", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday",
    "Saturday", "Sunday"),
WORD("weather",
    "sunny", "windy", "cloudy", "rainy", "snowy", "foggy", "warm", "cold", "bright", "breezy",
    "mild", "frosty"),
WORD("suddenly",
    "suddenly", "all at once", "a moment later", "before long", "soon", "by bad luck",
    "out of nowhere", "without warning"),
WORD("evening",
    "the sun went down", "the moon came up", "the stars came out", "the bells rang",
    "the lamps were lit", "it was time for bed", "supper was ready", "the birds were asleep"),
WORD("number", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
WORD("along",
    "along the path", "down the road", "over the hill", "out of the woods", "around the corner",
    "across the bridge", "through the gate", "up the lane", "past the trees", "from the fields"),
WORD("spot",
    "on a shelf", "under the pillow", "by the window", "next to the bed", "on the table",
    "in a box", "over the door", "near the fire", "in a drawer", "under a blanket"),

/* Things around them. */
WORD("place",
    "park", "beach", "meadow", "garden", "forest", "hill", "river", "lake", "market", "village",
    "farm", "orchard", "mill", "harbor", "castle", "fair"),
WORD("color",
    "red", "blue", "green", "golden", "silver", "purple", "pink", "white", "black", "glittering",
    "violet", "painted"),
WORD("look",
    "small", "big", "round", "plain", "dusty", "crooked", "gray", "brown", "wide", "strange",
    "pretty", "sturdy", "tiny", "large", "shiny", "yellow"),
WORD("house", "house", "cottage", "cabin", "hut", "tent", "tower", "wagon", "barn"),
WORD("landmark",
    "well", "gate", "bench", "fence", "bridge", "barrel", "statue", "fountain", "haystack",
    "wall", "log", "stump", "rock", "bush", "cart", "lamp"),
WORD("listener", "moon", "stars", "wind", "clouds", "birds", "trees", "sun", "rain"),
WORD("food",
    "bread", "honey", "plums", "cherries", "soup", "cake", "pancakes", "apples", "pears",
    "walnuts", "cheese", "carrots", "muffins", "berries", "pie", "cookies", "jam", "noodles",
    "grapes", "pudding"),
WORD("tasty",
    "tasty", "fresh", "sweet", "yummy", "homemade", "delicious", "leftover", "wonderful"),
WORD("drink", "milk", "tea", "cocoa", "lemonade", "water", "cider", "juice", "coffee"),
WORD("gift",
    "roses", "buttons", "acorns", "shells", "daisies", "ribbons", "feathers", "marbles", "tulips",
    "pebbles", "candles", "stamps"),
WORD("woolen",
    "striped", "dotted", "checked", "woolen", "patched", "velvet", "silk", "linen"),
WORD("coat", "coat", "vest", "cap", "cape", "sweater", "shirt", "cloak", "bow tie"),
WORD("bag", "bag", "sack", "box", "bundle", "bucket", "suitcase", "backpack", "jug"),
WORD("tree", "pine", "maple", "willow", "birch", "chestnut", "beech", "fir", "cedar"),
WORD("bird", "crow", "magpie", "raven", "jay", "gull", "pigeon"),
WORD("deep", "deep", "dark", "narrow", "muddy", "hidden", "secret"),
WORD("cold", "cold", "fast", "little", "noisy", "rocky", "clear"),
WORD("sticky", "sticky", "thick", "brown", "soft", "black", "cold"),
WORD("thorny", "thorny", "thick", "prickly", "wild", "leafy", "tangled"),
WORD("heavy", "heavy", "big", "mossy", "gray", "huge", "wooden"),
WORD("tall", "tall", "high", "green", "wet", "golden", "wild"),
WORD("cheeky", "cheeky", "hungry", "naughty", "greedy", "noisy", "clever"),
};
/* clang-format on */

const size_t kiln_story_n_lists = sizeof(kiln_story_lists) / sizeof(kiln_story_lists[0]);
_Static_assert(sizeof(kiln_story_lists) / sizeof(kiln_story_lists[0]) <= KILN_STORY_MAX_LISTS,
               "raise KILN_STORY_MAX_LISTS");
