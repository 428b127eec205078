"""What goes in and comes out."""

from pydantic import BaseModel


class Pet(BaseModel):
    """A pet as it is kept."""

    id: str
    name: str
    kind: str


class PetList(BaseModel):
    """Some pets, and where the next ones begin."""

    pets: list[Pet]
    next_token: str | None = None


class NewPet(BaseModel):
    """A pet that has no id yet."""

    name: str
    kind: str


class Change(BaseModel):
    """What is to be different; what is left out stays."""

    name: str | None = None
    kind: str | None = None
