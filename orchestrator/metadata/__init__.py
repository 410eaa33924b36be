"""The guest's front door: what 169.254.169.254 answers.

guest --TCP--> socket inside its VPC --> server (who asks? may it?) --> tree (what is there?)
                                           |                              |
                                         tokens (IMDSv2)                identity (signatures)
"""
